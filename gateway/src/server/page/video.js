// Video calls through LiveKit, where the operator has set it up; where not, nothing of this is to be seen.
//
// LiveKit's client is no part of this page: it is loaded from the operator's own address when the first call begins.

import { element } from "./log.js";
import { thisTab } from "./settings.js";
import { label, say, tell } from "./words.js";

// What the node says of video: { url, clientUrl }, or nothing.
export async function videoOf() {
  try {
    const answer = await fetch("/api/v1/client-config", { headers: { accept: "application/json" } });
    const { video } = answer.ok ? await answer.json() : {};
    return video?.clientUrl ? video : null;
  } catch {
    return null; // a page without video is a whole page
  }
}

// The token of one call, and where it is.
async function admission(room, clientId) {
  const headers = { "content-type": "application/json" };
  const token = thisTab.get("token");
  if (token) headers.authorization = `Bearer ${token}`;
  const path = `/api/v1/rooms/${encodeURIComponent(room)}/video-token`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify({ clientId }) });
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401 || answer.status === 403) throw new Error(say("callForbidden"));
  if (!answer.ok) throw new Error(said.detail ?? said.title ?? String(answer.status));
  return said;
}

// The call of one room: a button in its head, and a stage that is there while the call lasts.
export class Call {
  #video; #view; #button; #stage; #tiles; #controls; #status;
  #kit; #room = null;
  #byPerson = new Map(); // LiveKit's identity -> tile
  #ends = 0; // how often it was left, so that a call that was left while it began goes no further

  constructor(video, view) {
    this.#video = video;
    this.#view = view;
    [this.#button, this.#stage] = view.callParts;
    this.#button.hidden = false;
    this.#button.onclick = () => (this.#room ? this.leave() : this.#join());
  }

  async #join() {
    const ends = this.#ends;
    const isOver = () => this.#ends !== ends;
    this.#button.disabled = true;
    this.#build();
    tell(this.#status, "callJoining");
    try {
      const { url, token } = await admission(this.#view.id, this.#view.clientId);
      if (isOver()) return;
      this.#kit = await import(this.#video.clientUrl);
      if (isOver()) return;
      const room = new this.#kit.Room({ adaptiveStream: true, dynacast: true });
      this.#room = room;
      this.#listen(room);
      await room.connect(url ?? this.#video.url, token);
      if (isOver()) return void room.disconnect();
      tell(this.#button, "callLeave");
      this.#controlsFor(room);
      for (const person of [room.localParticipant, ...room.remoteParticipants.values()]) this.#tile(person);
      await this.#devices(room);
      if (isOver()) room.disconnect();
    } catch (error) {
      if (!isOver()) this.#end("callFailed", { reason: error.message || String(error) });
    } finally {
      this.#button.disabled = false;
    }
  }

  // Without camera and microphone one can still look on.
  async #devices(room) {
    try {
      await room.localParticipant.enableCameraAndMicrophone();
      this.#status.textContent = "";
      delete this.#status.dataset.say;
    } catch {
      tell(this.#status, "callNoDevice");
    }
    this.#paint();
  }

  leave() {
    this.#ends += 1;
    this.#end();
  }

  #end(key, values) {
    const room = this.#room;
    this.#room = null; // first, since disconnecting tells of itself
    room?.disconnect();
    this.#byPerson.clear();
    this.#stage.replaceChildren();
    this.#stage.hidden = true;
    tell(this.#button, "call");
    if (key) this.#view.notice(key, values);
  }

  // ---- what is shown

  #build() {
    this.#view.notice();
    this.#tiles = element("div", "tiles");
    this.#controls = element("div", "controls");
    this.#status = element("p", "hint");
    this.#status.setAttribute("role", "status");
    this.#stage.replaceChildren(this.#tiles, this.#controls, this.#status);
    this.#stage.hidden = false;
  }

  #controlsFor(room) {
    const me = room.localParticipant;
    const toggles = [
      ["microphone", () => me.setMicrophoneEnabled(!me.isMicrophoneEnabled)],
      ["camera", () => me.setCameraEnabled(!me.isCameraEnabled)],
    ].map(([kind, act]) => {
      const button = element("button", `quiet small ${kind}`);
      button.type = "button";
      button.onclick = async () => {
        button.disabled = true;
        await act().catch(() => tell(this.#status, "callNoDevice"));
        button.disabled = false;
        this.#paint();
      };
      return button;
    });
    this.#controls.replaceChildren(...toggles);
    this.#paint();
  }

  #paint() {
    const me = this.#room?.localParticipant;
    if (!me) return;
    const word = (kind, key) => tell(this.#controls.querySelector(kind), key);
    word(".microphone", me.isMicrophoneEnabled ? "callMute" : "callUnmute");
    word(".camera", me.isCameraEnabled ? "callCameraOff" : "callCameraOn");
    for (const person of [me, ...this.#room.remoteParticipants.values()]) this.#name(person);
  }

  #tile(person) {
    const known = this.#byPerson.get(person.identity);
    if (known) return known;
    const tile = element("div", "tile");
    tile.setAttribute("role", "group");
    tile.append(element("bdi", "who"));
    this.#byPerson.set(person.identity, tile);
    this.#tiles.append(tile);
    this.#name(person);
    return tile;
  }

  #name(person) {
    const tile = this.#byPerson.get(person.identity);
    if (!tile) return;
    const name = person.name || person.identity;
    const quiet = person.isMicrophoneEnabled ? "" : ` · ${say("callMuted")}`;
    tile.querySelector(".who").textContent = `${name}${quiet}`;
    label(tile, "callTile", { name });
  }

  #show(track, person) {
    const media = track.attach();
    media.muted ||= person === this.#room?.localParticipant; // one's own voice is no news
    this.#tile(person).prepend(media);
  }

  // ---- what LiveKit tells

  #listen(room) {
    const { RoomEvent } = this.#kit;
    const current = (run) => (...told) => room === this.#room && run(...told);
    const hide = (track) => track.detach().forEach((media) => media.remove());
    room.on(RoomEvent.TrackSubscribed, current((track, publication, person) => this.#show(track, person)));
    room.on(RoomEvent.TrackUnsubscribed, (track) => hide(track));
    room.on(RoomEvent.LocalTrackPublished, current(({ track }, person) => this.#show(track, person)));
    room.on(RoomEvent.LocalTrackUnpublished, ({ track }) => track && hide(track));
    room.on(RoomEvent.ParticipantConnected, current((person) => this.#tile(person)));
    room.on(RoomEvent.ParticipantDisconnected, current((person) => {
      this.#byPerson.get(person.identity)?.remove();
      this.#byPerson.delete(person.identity);
    }));
    for (const event of [RoomEvent.TrackMuted, RoomEvent.TrackUnmuted]) room.on(event, current(() => this.#paint()));
    room.on(RoomEvent.Disconnected, current(() => this.#end("callEnded")));
  }
}
