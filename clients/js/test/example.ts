// Compiled only: what users write has the types they expect. Lines under `@ts-expect-error` must not compile.

import { Roomcast, RoomcastError, type Message, type Room, type RoomcastOptions } from "roomcast";

interface Chat {
  text: string;
}

export async function chat(token: () => Promise<string>): Promise<void> {
  const options: RoomcastOptions = { name: "ann", token, WebSocket };
  const client = new Roomcast(["wss://a.example", new URL("wss://b.example")], options);
  const off: () => void = client.on("status", ({ state, nodeId, retryInMs }) => console.log(state, nodeId?.length, retryInMs?.toFixed()));
  client.on("error", (error: RoomcastError) => console.log(error.code, error.retryable, error.room));
  const room: Room<Chat> = client.join<Chat>("lobby", { since: { term: "t", seq: 1 } });
  room.on("message", ({ data, from, seq, own }) => console.log(data.text.length, from.name, seq?.toFixed(), own === true));
  room.on("presence", (told) => {
    if (told.event === "join") console.log(told.member.name);
    else console.log(told.online);
  });
  room.on("recovered", ({ kind, seq }) => console.log(kind === "diverged" ? seq : 0));
  room.once("left", ({ reason }) => console.log(reason));
  room.on("joined", async ({ members }) => console.log(members.length));
  const { id, seq, duplicate } = await room.publish({ text: "hi" }, { echo: false, timeoutMs: 1000, id: "x" });
  console.log(id.length, seq?.toFixed(), duplicate);
  const { messages, next } = await room.history({ before: 5, limit: 10 });
  const texts: string[] = messages.map((message: Message<Chat>) => message.data.text);
  console.log(texts, next, (await room.members()).online, [...room.present.values()].map(({ user }) => user), room.position?.term);
  await room.leave();
  off();
  await client.rename("Anna");
  await client.close();

  // @ts-expect-error: not what the room carries
  await room.publish({ txt: "hi" });
  // @ts-expect-error: no such event
  room.on("massage", () => {});
  // @ts-expect-error: rooms come from join()
  new (room.constructor as typeof Room)();
  // @ts-expect-error: a live map, not the user's to change
  room.present.clear();
  // @ts-expect-error: a number is no name
  new Roomcast("wss://a.example", { name: 5 });
}
