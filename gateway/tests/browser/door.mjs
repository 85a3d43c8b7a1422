// At the door: tokens, being sent away, and finding the way back in.
//
//   node door.mjs target/debug/gateway

import { check, connected, finish, holds, open, person, rename, room, said, same, told, unforeseen, write } from "./support.mjs";
import { Cluster, until } from "./nodes.mjs";

const TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJl";
const cluster = await Cluster.start(process.argv[2], 1);

// What the page would show of a token, or keep longer than it may.
const traces = (page) => page.evaluate((token) => [location.href.includes(token), document.documentElement.outerHTML.includes(token),
  JSON.stringify(localStorage).includes(token), document.cookie.includes(token), JSON.stringify(history.state)?.includes(token) ?? false], TOKEN);
const handshakes = (url) => cluster.heads(url).filter((head) => head.startsWith("GET /connect"));
const protocols = (head) => /^sec-websocket-protocol: *(.*?)\r?$/im.exec(head)?.[1] ?? "";

try {
  await check("a token in the address is used, and is in the address no more", async () => {
    const url = await cluster.balancer(0);
    const page = await person();
    await open(page, `${url}/#room=door&token=${TOKEN}`);
    await room(page, "door").waitFor();
    same(new URL(page.url()).hash, "#room=door");
    same(await traces(page), [false, false, false, false, false]);
    same(handshakes(url).length, 1);
    same(protocols(handshakes(url)[0]), `roomcast.v1.json, bearer.${TOKEN}`);
    holds(!cluster.heads(url).some((head) => head.split("\r\n")[0].includes(TOKEN)), "the token is in an address that was asked for");
    await page.reload();
    await connected(page);
    same(protocols(handshakes(url)[1]), `roomcast.v1.json, bearer.${TOKEN}`, "not kept for a reload");
    const other = await page.context().newPage();
    await other.goto(url);
    await other.locator('#status[data-state="open"]').waitFor();
    same(protocols(handshakes(url)[2]), "roomcast.v1.json", "another tab has it");
    same(unforeseen(page), []);
    await page.context().close();
  });

  await check("a token is taken from the settings, and the rooms stay", async () => {
    const url = await cluster.balancer(0);
    const page = await person();
    await open(page, `${url}/#room=door`);
    await write(page, "before the token");
    await said(page, "before the token").waitFor();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("Access token").fill(TOKEN);
    await page.getByLabel("Access token").press("Enter");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    await until("a handshake with it", () => handshakes(url).some((head) => protocols(head).includes(TOKEN)));
    await connected(page);
    await write(page, "after the token");
    await said(page, "after the token").waitFor();
    same(await said(page, "before the token").count(), 1);
    same(await traces(page), [false, false, false, false, false]);
    same(await page.getByLabel("Access token").inputValue(), "");
    await page.context().close();
  });

  const sentAway = [
    [4401, "the token has expired", "Your access token is missing, wrong or has run out"],
    [4403, "", "You may not connect from here with this token"],
    [4409, "your name is <b>rude</b>", "An operator has ended your connection: your name is <b>rude</b>"],
  ];
  for (const [code, reason, words] of sentAway) {
    await check(`closed with ${code}: the page says why, and waits for a person`, async () => {
      const url = await cluster.balancer(0);
      const page = await person();
      let sockets = 0;
      await page.routeWebSocket(/\/connect/, async (socket) => {
        sockets += 1;
        const node = socket.connectToServer();
        if (sockets > 1) return;
        node.onMessage((text) => {
          socket.send(text);
          if (JSON.parse(text).type === "joined") setTimeout(() => socket.close({ code, reason }), 100);
        });
      });
      await page.goto(`${url}/#room=door`);
      await page.locator("#notice").getByText(words).waitFor();
      same(await page.locator("#status").getAttribute("data-state"), "stopped");
      same(await page.getByRole("dialog").isVisible(), code === 4401, "the field for a token");
      if (code === 4401) await page.keyboard.press("Escape");
      same(sockets, 1, "it came back unasked");
      await page.getByRole("button", { name: "Try now" }).click();
      await connected(page);
      await write(page, `after ${code}`);
      await said(page, `after ${code}`).waitFor();
      await page.locator("#notice").waitFor({ state: "hidden" });
      same(unforeseen(page), []);
      await page.context().close();
    });
  }

  await check("a name that went to another is asked for anew, and another one leads back", async () => {
    const url = await cluster.balancer(0);
    const page = await person();
    const asked = [];
    await page.routeWebSocket(/\/connect/, (socket) => {
      asked.push(new URL(socket.url()).searchParams.get("name"));
      const node = socket.connectToServer();
      if (asked.length > 1) return;
      node.onMessage((text) => {
        socket.send(text);
        if (text.includes("Ana")) setTimeout(() => socket.close({ code: 4409, reason: "the name was taken by another" }), 100);
      });
    });
    await page.goto(`${url}/#room=door`);
    await connected(page);
    await rename(page, "Ana");
    await page.locator("#notice").getByText("Your name went to someone else while you were away").waitFor();
    await rename(page, "Anna");
    await connected(page);
    same(asked.at(-1), "Anna");
    await write(page, "back as Anna");
    await said(page, "back as Anna").waitFor();
    await page.context().close();
  });

  await check("being removed from a room is told there, and one may come in again", async () => {
    const url = await cluster.balancer(0);
    const page = await person();
    let shown;
    await page.routeWebSocket(/\/connect/, (socket) => {
      const node = socket.connectToServer();
      node.onMessage((text) => socket.send(text));
      shown = socket;
    });
    await page.goto(`${url}/#room=door`);
    await write(page, "I was here");
    await said(page, "I was here").waitFor();
    shown.send(JSON.stringify({ type: "left", room: "door", reason: "removed" }));
    await told(page, "You were removed from this room").waitFor();
    await write(page, "Can you hear me?");
    await room(page).locator(".pending .failed .state").getByText("Not sent: you are not in the room").waitFor();
    await room(page).locator(".pending").getByRole("button", { name: "Discard" }).click();
    await room(page).locator(".pending .message").waitFor({ state: "detached" });
    await room(page).getByRole("button", { name: "Come in again" }).click();
    await room(page).locator(".room-notice").waitFor({ state: "hidden" });
    await write(page, "Here I am");
    await said(page, "Here I am").waitFor();
    same(await said(page, "I was here").count(), 1);
    await page.context().close();
  });

  await check("where the node answers but lets nobody in, the page says what it may be", async () => {
    const url = await cluster.balancer(0);
    const page = await person();
    let refuse = true;
    await page.routeWebSocket(/\/connect/, (socket) => (refuse ? socket.close({ code: 1006 }) : socket.connectToServer()));
    await page.goto(`${url}/#room=door`);
    await page.locator("#notice").getByText("The node is there, but does not let you in").waitFor();
    refuse = false;
    await page.getByRole("button", { name: "Try now" }).click();
    await connected(page);
    await page.locator("#notice").waitFor({ state: "hidden" });
    await page.context().close();
  });

  await check("who has too many connections reads so, and comes in when one is free", async () => {
    const url = await cluster.balancer(0);
    const page = await person();
    let sockets = 0;
    await page.routeWebSocket(/\/connect/, (socket) => {
      sockets += 1;
      if (sockets > 1) return socket.connectToServer();
      return socket.close({ code: 4429, reason: "too many connections of this user" });
    });
    await page.goto(`${url}/#room=door`);
    await page.locator("#notice").getByText("as many connections open as you may have").waitFor();
    await connected(page);
    await page.locator("#notice").waitFor({ state: "hidden" });
    await page.context().close();
  });

  await check("a message that is too long is not lost: it can be sent again or discarded", async () => {
    const url = await cluster.balancer(0);
    const page = await person();
    await open(page, `${url}/#room=door`);
    await write(page, "x".repeat(70_000));
    const failed = room(page).locator(".pending .failed");
    await failed.locator(".state").getByText("Not sent: it is too long").waitFor();
    await failed.getByRole("button", { name: "Try again" }).click();
    await failed.locator(".state").getByText("Not sent: it is too long").waitFor();
    await failed.getByRole("button", { name: "Discard" }).click();
    await failed.waitFor({ state: "detached" });
    await page.context().close();
  });
} finally {
  await cluster.stop();
  await finish();
}
