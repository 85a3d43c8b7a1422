// Video calls: the page asks the node for a token and joins through the client module that the operator serves. Here the
// operator's server is this test: it serves a module that does what LiveKit's does towards the page, and real LiveKit's.
//
//   node video.mjs target/debug/gateway

import { createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { check, enter, finish, holds, installed, member, online, open, person, rename, room, same, showPeople, unforeseen } from "./support.mjs";
import { Cluster, until } from "./nodes.mjs";

const SECRET = "a-secret-of-the-operator-that-is-long-enough";
const LIVEKIT = path.join(path.dirname(installed.resolve("livekit-client")), "livekit-client.esm.mjs");

// Towards the page like LiveKit's client: the same names and events. It really connects, so that the policy is asked.
const MODULE = `
export const RoomEvent = Object.fromEntries(["TrackSubscribed", "TrackUnsubscribed", "LocalTrackPublished", "LocalTrackUnpublished",
  "ParticipantConnected", "ParticipantDisconnected", "TrackMuted", "TrackUnmuted", "Disconnected"].map((name) => [name, name]));
const track = () => {
  const made = [];
  return { attach() { made.push(document.createElement("video")); return made.at(-1); }, detach: () => made.splice(0) };
};
export class Room {
  #told = {};
  remoteParticipants = new Map();
  constructor(options) { window.call = { room: this, options, calls: [] }; }
  on(event, run) { if (event === undefined) throw new Error("no such event"); (this.#told[event] ??= []).push(run); return this; }
  tell(event, ...values) { for (const run of this.#told[event] ?? []) run(...values); }
  async connect(url, token) {
    const socket = new WebSocket(url + "/rtc?access_token=" + token);
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = () => reject(new Error("no signal connection")); });
    this.socket = socket;
    const { sub, name } = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    const room = this;
    this.localParticipant = {
      identity: sub, name, isMicrophoneEnabled: false, isCameraEnabled: false,
      async enableCameraAndMicrophone() {
        if (window.noCamera) throw new DOMException("denied", "NotAllowedError");
        this.isMicrophoneEnabled = this.isCameraEnabled = true;
        room.tell("LocalTrackPublished", { track: track() }, this);
      },
      async setMicrophoneEnabled(on) { window.call.calls.push("microphone " + on); this.isMicrophoneEnabled = on; room.tell(on ? "TrackUnmuted" : "TrackMuted"); },
      async setCameraEnabled(on) { window.call.calls.push("camera " + on); this.isCameraEnabled = on; },
    };
    this.remoteParticipants.set("early", { identity: "early", name: "Already there", isMicrophoneEnabled: true });
  }
  arrive(identity, name) {
    const person = { identity, name, isMicrophoneEnabled: false };
    this.remoteParticipants.set(identity, person);
    this.tell("ParticipantConnected", person);
    person.track = track();
    this.tell("TrackSubscribed", person.track, {}, person);
    return person;
  }
  go(identity) {
    const person = this.remoteParticipants.get(identity);
    this.remoteParticipants.delete(identity);
    this.tell("TrackUnsubscribed", person.track, {}, person);
    this.tell("ParticipantDisconnected", person);
  }
  async disconnect() { window.call.calls.push("disconnect"); this.socket?.close(); this.tell("Disconnected"); }
}
`;

// The operator's files on one port, a stand-in for LiveKit's signal connection on another.
const asked = [];
const files = http.createServer((request, response) => {
  asked.push(request.url);
  const body = { "/livekit.mjs": () => MODULE, "/real.mjs": () => readFileSync(LIVEKIT) }[request.url];
  response.writeHead(body ? 200 : 404, { "content-type": "text/javascript", "access-control-allow-origin": "*" });
  response.end(body?.());
}).listen(0, "127.0.0.1");
const signals = [];
const livekit = http.createServer((request, response) => {
  response.writeHead(401, { "access-control-allow-origin": "*" }).end("no such room");
}).listen(0, "127.0.0.1");
livekit.on("upgrade", (request, socket) => {
  const { pathname, searchParams } = new URL(request.url, "ws://host");
  if (pathname !== "/rtc" || searchParams.has("sdk")) return socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"); // to LiveKit's own client
  signals.push(searchParams.get("access_token"));
  const key = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  socket.on("error", () => {});
  return socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`);
});
await Promise.all([files, livekit].map((server) => server.listening || once(server, "listening")));
const filesAt = `http://127.0.0.1:${files.address().port}`;
const livekitAt = `ws://127.0.0.1:${livekit.address().port}`;

const withVideo = (module) => Cluster.start(process.argv[2], 1, { args: ["--livekit-url", livekitAt, "--livekit-api-key", "key-1",
  "--livekit-api-secret", SECRET, "--livekit-client-url", module] });
const [plain, stub, real] = await Promise.all([Cluster.start(process.argv[2], 1), withVideo(`${filesAt}/livekit.mjs`), withVideo(`${filesAt}/real.mjs`)]);
const inCall = (page) => room(page).getByRole("button", { name: "Leave the call" }).waitFor();

function claimsOf(token) {
  const [head, body, signature] = token.split(".");
  same(signature, createHmac("sha256", SECRET).update(`${head}.${body}`).digest("base64url"), "not signed with the operator's secret");
  return JSON.parse(Buffer.from(body, "base64url"));
}

try {
  await check("without LiveKit there is no trace of video", async () => {
    const page = await person();
    const answer = await open(page, `${await plain.balancer(0)}/#room=film`);
    await online(page, 1);
    same(await room(page).getByRole("button", { name: /video|call/i }).count(), 0);
    holds(!answer.headers()["content-security-policy"].includes("http"), "another origin is let in");
    same(asked, []);
    same(page.complaints, []);
    await page.context().close();
  });

  const url = await stub.balancer(0);
  const ana = await person();
  const bo = await person();

  await check("with it, a button joins the room's call with a token for that room", async () => {
    for (const [page, name] of [[ana, "Ana"], [bo, "Bo"]]) {
      await open(page, `${url}/#room=film`);
      await rename(page, name);
    }
    await showPeople(ana);
    await member(ana, "Bo").waitFor();
    await member(ana, "Ana (you)").waitFor();
    same(asked, [], "the operator's file is loaded before anybody calls");
    await room(ana).getByRole("button", { name: "Video call" }).click();
    await inCall(ana);
    same(asked, ["/livekit.mjs"]);
    same(signals.length, 1);
    const { iss, sub, name, video, exp } = claimsOf(signals[0]);
    same([iss, name, video.room, video.roomJoin], ["key-1", "Ana", "film", true]);
    same(sub, await ana.evaluate(() => JSON.parse(sessionStorage.getItem("mine")).at(-1)), "another client's");
    holds(exp * 1000 > Date.now() && exp * 1000 < Date.now() + 10 * 60_000, `expires ${exp}`);
    same(await ana.evaluate(() => window.call.options.adaptiveStream), true);
  });

  await check("there are tiles for everyone in it, and hostile names are text", async () => {
    const tiles = room(ana).locator(".tile");
    await tiles.getByText("Already there").waitFor();
    await tiles.getByText("Ana", { exact: true }).waitFor();
    same(await ana.evaluate(() => document.querySelector(".tile video").muted), true, "one's own voice");
    await ana.evaluate(() => { window.guest = window.call.room.arrive("g1", "<img src=x onerror=alert(1)>"); });
    await tiles.getByText("<img src=x onerror=alert(1)> · muted").waitFor();
    same(await tiles.count(), 3);
    same(await tiles.locator("video").count(), 2);
    same(await room(ana).locator("img").count(), 0);
    await ana.evaluate(() => window.call.room.go("g1"));
    await until("the tile is gone", async () => (await tiles.count()) === 2);
  });

  await check("microphone and camera are switched, and the buttons say how", async () => {
    const stage = room(ana).getByRole("group", { name: "Video call" });
    await stage.getByRole("button", { name: "Mute" }).click();
    await stage.getByRole("button", { name: "Unmute" }).click();
    await stage.getByRole("button", { name: "Mute" }).waitFor();
    await stage.getByRole("button", { name: "Camera off" }).click();
    await stage.getByRole("button", { name: "Camera on" }).waitFor();
    same(await ana.evaluate(() => window.call.calls), ["microphone false", "microphone true", "camera false"]);
  });

  await check("leaving the call takes it down, and it can be joined again", async () => {
    await room(ana).getByRole("button", { name: "Leave the call" }).click();
    await room(ana).locator(".stage").waitFor({ state: "hidden" });
    same(await ana.evaluate(() => window.call.calls.at(-1)), "disconnect");
    same(await room(ana).locator(".tile, video").count(), 0);
    await room(ana).getByRole("button", { name: "Video call" }).click();
    await inCall(ana);
    await ana.evaluate(() => window.call.room.disconnect());
    await room(ana).locator(".room-notice").getByText("The call has ended").waitFor();
    await room(ana).getByRole("button", { name: "Video call" }).click();
    await inCall(ana);
    await room(ana).getByRole("button", { name: "Leave film" }).click();
    await room(ana).waitFor({ state: "detached" });
    same(await ana.evaluate(() => window.call.calls.at(-1)), "disconnect", "the room is left, the call goes on");
  });

  await check("without a camera one is in the call all the same", async () => {
    await bo.evaluate(() => { window.noCamera = true; });
    await room(bo).getByRole("button", { name: "Video call" }).click();
    await inCall(bo);
    await room(bo).locator(".stage").getByText("but without camera and microphone").waitFor();
    await room(bo).getByRole("button", { name: "Leave the call" }).click();
  });

  await check("who is refused a token reads why, and nothing is left on the stage", async () => {
    await bo.route("**/video-token", (route) => route.fulfill({ status: 403, contentType: "application/problem+json", body: "{}" }));
    await room(bo).getByRole("button", { name: "Video call" }).click();
    await room(bo).locator(".room-notice").getByText("The call could not be joined: you may not join it").waitFor();
    await room(bo).locator(".stage").waitFor({ state: "hidden" });
    await bo.unroute("**/video-token");
    bo.complaints = bo.complaints.filter((text) => !text.includes("403"));
  });

  await check("the policy lets in exactly LiveKit and its client", async () => {
    const answer = await bo.request.get(url);
    const policy = Object.fromEntries(answer.headers()["content-security-policy"].split("; ").map((part) => [part.split(" ")[0], part.split(" ").slice(1)]));
    same(policy["script-src"], ["'self'", filesAt]);
    same(policy["connect-src"], ["'self'", livekitAt, livekitAt.replace("ws:", "http:")]);
    same(policy["default-src"], ["'none'"]);
    const stopped = await bo.evaluate(async (other) => {
      const violations = [];
      document.addEventListener("securitypolicyviolation", ({ effectiveDirective }) => violations.push(effectiveDirective));
      await import(`${other}/evil.mjs`).catch(() => {});
      await fetch(`${other}/evil`).catch(() => {});
      const end = Date.now() + 60_000; // both are told a little later
      while (violations.length < 2 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
      return violations.map((name) => name.replace("-elem", ""));
    }, "http://127.0.0.1:9");
    same(stopped, ["script-src", "connect-src"]);
    bo.complaints = bo.complaints.filter((text) => !/Content Security Policy|127.0.0.1:9/.test(text));
  });

  await check("a room that is left while its call begins has no call", async () => {
    const page = await person();
    await open(page, `${await stub.balancer(0)}/#room=brief`);
    await online(page, 1);
    let release;
    const left = new Promise((resolve) => { release = resolve; });
    const granted = new Promise((resolve) => {
      page.route("**/video-token", async (route) => {
        const response = await route.fetch();
        resolve(response.status());
        await left;
        await route.fulfill({ response });
      });
    });
    await room(page).getByRole("button", { name: "Video call" }).click();
    same(await granted, 200);
    await room(page).getByRole("button", { name: "Leave" }).click();
    const answered = page.waitForResponse("**/video-token");
    release();
    await answered;
    const call = await page.evaluate(async (module) => {
      await import(module);
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setTimeout(resolve));
      return typeof window.call;
    }, `${filesAt}/livekit.mjs`);
    same(call, "undefined", "camera and microphone would be on");
    await page.context().close();
  });

  await check("LiveKit's own client has all that the page asks of it, under the page's policy", async () => {
    const page = await person();
    await open(page, `${await real.balancer(0)}/#room=film`);
    await online(page, 1);
    await page.evaluate(() => {
      window.violations = [];
      document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => window.violations.push(`${violatedDirective} ${blockedURI}`));
    });
    const missing = await page.evaluate(async (module) => {
      const kit = await import(module);
      const source = await (await fetch("/video.js")).text();
      const events = [...source.matchAll(/RoomEvent\.(\w+)/g)].map(([, name]) => name);
      const made = new kit.Room({ adaptiveStream: true, dynacast: true });
      return [...events.filter((name) => typeof kit.RoomEvent[name] !== "string"),
        ...["connect", "disconnect", "on"].filter((name) => typeof made[name] !== "function"),
        ...["enableCameraAndMicrophone", "setMicrophoneEnabled", "setCameraEnabled"].filter((name) => typeof made.localParticipant[name] !== "function"),
        ...["isMicrophoneEnabled", "isCameraEnabled"].filter((name) => typeof made.localParticipant[name] !== "boolean"),
        ...(made.remoteParticipants instanceof Map ? [] : ["remoteParticipants"]), ...(events.length < 9 ? ["no events found"] : [])];
    }, `${filesAt}/real.mjs`);
    same(missing, []);
    await room(page).getByRole("button", { name: "Video call" }).click();
    await room(page).locator(".room-notice").getByText("The call could not be joined").waitFor();
    same(await page.evaluate(() => window.violations), []);
    await page.context().close();
  });

  await check("no error in any console", async () => {
    const complaints = [ana, bo].flatMap(unforeseen);
    holds(complaints.length === 0, complaints.join("\n"));
  });
} finally {
  await Promise.all([plain, stub, real].map((cluster) => cluster.stop()));
  for (const server of [files, livekit]) {
    server.close();
    server.closeAllConnections();
  }
  await finish();
}
process.exit(); // the sockets that were upgraded are nobody's now
