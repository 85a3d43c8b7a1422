// Types of roomcast.js. What each event means stands in the README.

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

export interface Position {
  /** The term of the last message seen; null before a room's first message. */
  term: string | null;
  seq: number;
}

export interface Member {
  id: string;
  name: string;
  /** Who the member is by their token. Names can be chosen, this cannot. */
  user?: string;
  /** What the token says about the member. */
  info?: unknown;
}

export interface Author {
  id: string;
  name: string;
  user?: string;
}

export interface Message<Data = any> {
  room: string;
  id: string;
  from: Author;
  /** When it was stored, ms since the Unix epoch. Not an order. */
  ts: number;
  data: Data;
  /** Place in the room's order; absent in ephemeral rooms. */
  seq?: number;
  term?: string;
  /** Published by this client, now or before a reconnect. */
  own: boolean;
  /** From the room's history, or missed while the connection was lost. */
  replayed: boolean;
}

export type Recovery = "fresh" | "resumed" | "gap" | "diverged" | "unknown_term";

export interface JoinedEvent {
  recovery: Recovery;
  mode: "durable" | "ephemeral";
  online: number;
  members: Member[];
}

export interface RecoveredEvent extends Position {
  kind: "resumed" | "gap" | "diverged" | "unknown_term";
}

export type PresenceEvent =
  | { event: "join" | "leave" | "rename"; member: Member; was?: string; online: number }
  | { event: "count" | "list"; member?: undefined; was?: undefined; online: number };

export interface LeftEvent {
  /** `left` by `leave()`, `removed` by the server, `forbidden` by a new token, or the code of the error that refused the join. */
  reason: string;
}

export interface Status {
  state: "connecting" | "open" | "waiting" | "closed";
  /** Attempts in a row that led to no lasting connection. */
  attempt: number;
  /** The node that serves this client; while waiting, the one that did. */
  nodeId?: string;
  clientId?: string;
  /** The display name in force when the connection was opened. */
  name?: string;
  /** The close code of the lost connection: 1006 if it just broke. */
  code?: number;
  reason?: string;
  retryInMs?: number;
}

export type ErrorCode =
  // of the protocol
  | "bad_frame" | "unknown_type" | "bad_room" | "too_large" | "stale_id" | "not_joined" | "already_joined" | "room_limit"
  | "rate_limited" | "overloaded" | "broker_unavailable" | "storage_full" | "undecided" | "internal" | "name_taken" | "forbidden"
  | "unauthorized" | "keys_unavailable"
  // of this client
  | "bad_data" | "bad_name" | "bad_url" | "closed" | "left" | "listener" | "not_connected" | "out_of_order" | "removed" | "stopped"
  | "timeout" | "token"
  // of a later server
  | (string & {});

export class RoomcastError extends Error {
  constructor(code: ErrorCode, message: string, more?: { retryable?: boolean; room?: string; cause?: unknown });
  readonly name: "RoomcastError";
  readonly code: ErrorCode;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;
  readonly room?: string;
}

export interface ClientEvents {
  status: Status;
  error: RoomcastError;
}

export interface RoomEvents<Data = any> {
  joined: JoinedEvent;
  message: Message<Data>;
  presence: PresenceEvent;
  recovered: RecoveredEvent;
  left: LeftEvent;
  error: RoomcastError;
}

/** The part of a WebSocket that is used: that of browsers, of Node 22 and later, and of the package `ws`. */
export interface SocketLike {
  readonly readyState: number;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  terminate?(): void;
}

export interface RoomcastOptions {
  /** Display name, 1 to 64 bytes without control characters. Without it the server gives one. */
  name?: string;
  /** A JWT, or a function that fetches one: called before each connection and before the token ends. */
  token?: string | (() => string | Promise<string>);
  /** Where there is no global one. */
  WebSocket?: new (url: string, protocols?: string[]) => SocketLike;
  /** Default true: connect without being told. */
  autoConnect?: boolean;
  /** Longest wait between two attempts. Default 30000. */
  maxDelayMs?: number;
  /** How long a connection has to last for the waits to begin small again. Default 10000. */
  stableMs?: number;
  /** From the token to `welcome`. Default 15000. */
  connectTimeoutMs?: number;
  /** Silence after which the server is asked for a sign of life. Default 15000. */
  silenceMs?: number;
  /** How long it has for it. Default 10000. */
  pongTimeoutMs?: number;
  /** How long a publish or a question may take, waiting and repeating included. Default 60000. */
  timeoutMs?: number;
  /** Publishes that may wait for an answer, all rooms together. Default 1000. */
  maxQueuedMessages?: number;
  /** Default 1048576. */
  maxQueuedBytes?: number;
  /** Source of chance for waits, 0 to 1. Default Math.random. */
  random?: () => number;
}

export interface PublishOptions {
  /** Idempotency key, 1 to 128 bytes. Default: numbered by the client. */
  id?: string;
  /** Default true: what is published comes back as `message` too. */
  echo?: boolean;
  /** Default: that of the client. Beyond 5 minutes a repeat may be stored twice. */
  timeoutMs?: number;
}

export interface Published {
  room: string;
  id: string;
  /** Absent in ephemeral rooms, and for duplicates of long ago. */
  seq?: number;
  term?: string;
  /** It was stored by an earlier attempt; nobody got it again. */
  duplicate?: boolean;
}

export interface JoinOptions {
  /** Where an earlier client ended (`room.position`): what was missed since then comes first. */
  since?: Position;
}

declare class Emitter<Events> {
  /** Returns what takes the listener away again. */
  on<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => unknown): () => void;
  once<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => unknown): () => void;
  off<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => unknown): void;
}

export class Room<Data = any> extends Emitter<RoomEvents<Data>> {
  private constructor();
  readonly id: string;
  readonly state: "joining" | "joined" | "left";
  /** Known once joined. */
  readonly mode: "durable" | "ephemeral" | undefined;
  /** Sessions in the room over all nodes. */
  readonly online: number;
  /** Who is there, by id, kept up to date. In large rooms not all of them. */
  readonly present: ReadonlyMap<string, Member>;
  /** The last message seen. */
  readonly position: Position | undefined;
  /** Resolves at the first `joined`, rejects if the room cannot be joined. */
  readonly ready: Promise<void>;
  publish(data: Data, options?: PublishOptions): Promise<Published>;
  history(page?: { before?: number; after?: number; limit?: number }): Promise<{ messages: Message<Data>[]; next?: number }>;
  members(page?: { cursor?: string; limit?: number }): Promise<{ members: Member[]; online: number; next?: string }>;
  leave(): Promise<void>;
}

export class Roomcast extends Emitter<ClientEvents> {
  constructor(url: string | URL | readonly (string | URL)[], options?: RoomcastOptions);
  readonly status: Status;
  readonly name: string | undefined;
  readonly rooms: Room[];
  /** Connects now instead of waiting; also after the server has sent this client away for good. */
  connect(): void;
  /** Joins a room, or makes one under a random id. The same id twice is the same object. */
  join<Data = any>(id?: string, options?: JoinOptions): Room<Data>;
  rename(name: string): Promise<void>;
  /** Ends everything. Resolves when the socket is closed. */
  close(): Promise<void>;
}
