// Rooms from the inside: history, names that are taken, what is said when the room lost something, and being sent away.
//
//   node rooms.mjs target/debug/gateway

import { check, connected, enter, finish, holds, member, online, open, people, person, publish, rename, room, said, same, showPeople, texts,
  told, unforeseen, write } from "./support.mjs";
import { Cluster, until } from "./nodes.mjs";

const config = `
[[rooms]]
pattern = "unique-*"
unique_names = true
[[rooms]]
pattern = "short-*"
history_size = 5
[[rooms]]
pattern = "cursor-*"
mode = "ephemeral"
`;
const cluster = await Cluster.start(process.argv[2], 2, { config, args: ["--lease-beat", "500ms", "--lease-expiry", "3s"] });

try {
  const [first, second] = [await cluster.balancer(0, 1), await cluster.balancer(1, 0)];
  const [ana, bo] = [await person(), await person()];
  await open(ana, first);
  await open(bo, second);
  await rename(ana, "Ana");
  await rename(bo, "Bo");

  await check("history comes on entering, and older messages when asked for, without moving the reader", async () => {
    await publish(bo, "long", 130);
    await enter(ana, "long");
    await said(ana, "line 129").waitFor();
    same((await texts(ana)).length, 50);
    const older = room(ana).getByRole("button", { name: "Older messages" });
    await older.click();
    await said(ana, "line 30").waitFor();
    const top = await said(ana, "line 80").boundingBox();
    holds(top.y > 0 && top.y < 680, `what was read has gone out of sight: ${JSON.stringify(top)}`);
    await older.click();
    await said(ana, "line 0").waitFor();
    await older.waitFor({ state: "hidden" });
    same(await texts(ana), Array.from({ length: 130 }, (_, number) => `line ${number}`));
    same(await room(ana).locator(".day").count(), 1, "one day, told once");
  });

  await check("whoever reads further up is not moved, and is told what came", async () => {
    await room(ana).locator(".log").evaluate((log) => { log.scrollTop = 0; });
    await publish(bo, "long", 2, 130);
    const below = room(ana).getByRole("button", { name: "2 new messages" });
    await below.waitFor();
    same(await room(ana).locator(".log").evaluate((log) => log.scrollTop), 0);
    await below.click();
    await below.waitFor({ state: "hidden" });
    await until("the end is in sight", () => room(ana).locator(".log").evaluate((log) => log.scrollHeight - log.scrollTop - log.clientHeight < 5));
  });

  await check("a crowd of messages keeps the page small", async () => {
    await publish(bo, "long", 700, 132);
    await said(ana, "line 831").waitFor();
    const lines = await room(ana).locator(".lines > li").count();
    holds(lines <= 601, `${lines} lines`);
    await room(ana).getByRole("button", { name: "Older messages" }).waitFor();
  });

  await check("a name that is taken in a room is told on entering, and another one lets in", async () => {
    await enter(bo, "unique-1");
    await online(bo, 1);
    await rename(ana, "Bo");
    await enter(ana, "unique-1");
    await room(ana).locator(".room-notice").getByText("Someone here has your name already").waitFor();
    await ana.locator("#name-problem").getByText("Someone in unique-1 has the name Bo already").waitFor();
    same(await ana.locator("#name").inputValue(), "Bo", "what was typed is gone");
    same(await ana.locator("#name").getAttribute("aria-invalid"), "true");
    await rename(ana, "Ana");
    await online(ana, 2);
    await room(ana).locator(".room-notice").waitFor({ state: "hidden" });
    await ana.locator("#name-problem").waitFor({ state: "hidden" });
  });

  await check("a name that is taken is told on renaming, kept in its field, and the old one stays", async () => {
    await rename(ana, "Bo");
    await ana.locator("#name-problem").getByText("Someone has the name Bo already. You are still Ana").waitFor();
    same(await ana.locator("#name").inputValue(), "Bo");
    await showPeople(bo);
    await member(bo, "Ana").waitFor();
    same(await ana.evaluate(() => document.activeElement.id), "name", "focus has gone elsewhere");
    await rename(ana, "Anna");
    await member(bo, "Anna").waitFor();
    await told(bo, "Ana is now Anna").waitFor();
    await ana.locator("#name-problem").waitFor({ state: "hidden" });
  });

  await check("what an ephemeral room says is shown once, and not promised to be kept", async () => {
    for (const page of [ana, bo]) await enter(page, "cursor-1");
    await online(ana, 2);
    await write(ana, "here");
    await said(bo, "here").waitFor();
    same(await texts(ana), ["here"]);
    await room(ana).locator(".pending .message").waitFor({ state: "detached" });
  });

  await check("messages that were not kept are told as gone", async () => {
    const cleo = await person();
    await open(cleo, first);
    await enter(cleo, "short-1");
    await publish(bo, "short-1", 3);
    await said(cleo, "line 2").waitFor();
    await cleo.context().setOffline(true);
    await cluster.cut(first); // a browser that is offline keeps the sockets it has
    await cleo.locator('#status[data-state="waiting"]').waitFor();
    await publish(bo, "short-1", 900, 3);
    await cleo.context().setOffline(false);
    await connected(cleo);
    await told(cleo, "Some messages are gone: the room no longer keeps them").waitFor();
    await said(cleo, "line 902").waitFor();
    await write(cleo, "after the gap");
    await said(cleo, "after the gap").waitFor();
    await cleo.context().close();
  });

  await check("a room that went back in time says so, and what is gone is not shown", async () => {
    await enter(ana, "past");
    await enter(bo, "past");
    await write(ana, "before");
    await said(bo, "before").waitFor();
    await cluster.forget(); // all that Redis has, as a restore of an empty backup would
    await write(bo, "after");
    await said(ana, "after").waitFor();
    await room(ana).locator(".system").getByText(/^The room (went back in time|has started over)/).waitFor();
    await until("the lost one is gone", async () => (await texts(ana)).join() === "after" && (await texts(bo)).join() === "after");
  });

  await check("several rooms and the name are there after a reload", async () => {
    const before = await ana.getByRole("list", { name: "Joined rooms" }).getByRole("button").allTextContents();
    holds(before.length >= 4, before.join());
    await ana.reload();
    await connected(ana);
    same(await ana.getByRole("list", { name: "Joined rooms" }).getByRole("button").allTextContents(), before);
    same(await ana.locator("#name").inputValue(), "Anna");
  });

  await check("a room is chosen from the list, also when a message comes while the pointer is down", async () => {
    await ana.setViewportSize({ width: 700, height: 680 }); // one room at a time
    await enter(bo, "busy");
    await enter(ana, "busy");
    await online(ana, 2, "busy");
    const listed = (id) => ana.getByRole("list", { name: "Joined rooms" }).getByRole("button", { name: id });
    await listed("past").click();
    await room(ana, "busy").waitFor({ state: "hidden" });
    await listed("busy").hover();
    await ana.mouse.down();
    await write(bo, "now", "busy");
    await listed("busy").getByText("1 new", { exact: true }).waitFor();
    await ana.mouse.up();
    await room(ana, "busy").waitFor({ state: "visible" });
    await ana.setViewportSize({ width: 1100, height: 680 });
  });

  await check("members stand in order, oneself in front", async () => {
    const here = await bo.evaluate(async () => {
      const { Roomcast } = await import("/roomcast.js");
      window.others = ["item 10", "Äpfel", "item 9", "zoe"].map((name) => new Roomcast(`ws://${location.host}/connect`, { name }));
      await Promise.all(window.others.map((client) => client.join("busy").ready));
    });
    same(here, undefined);
    await online(ana, 6, "busy");
    await showPeople(ana, "busy");
    await until("in order", async () => (await people(ana, "busy")).join() === "Anna (you),Äpfel,Bo,item 9,item 10,zoe");
    await bo.evaluate(() => Promise.all(window.others.map((client) => client.close())));
  });

  await check("a name that is taken away comes back, and one that cannot be keeps nobody out", async () => {
    await ana.locator("#name").fill("");
    await ana.locator("#name").press("Enter");
    same(await ana.locator("#name").inputValue(), "Anna");
    const cleo = await person();
    await cleo.addInitScript(() => localStorage.setItem("name", "п".repeat(40)));
    await open(cleo, `${first}/#room=busy`);
    await write(cleo, "I am in");
    await said(ana, "I am in", "busy").waitFor();
    await cleo.context().close();
  });

  await check("a link is copied, or shown where the browser does not let", async () => {
    await ana.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await ana.evaluate(() => { // it is said for a few seconds only
      window.noticed = [];
      new MutationObserver(() => window.noticed.push(document.querySelector("#notice").textContent.trim()))
        .observe(document.querySelector("#notice"), { childList: true, subtree: true });
    });
    await room(ana, "past").getByRole("button", { name: "Copy link" }).click();
    await until("it is said", async () => (await ana.evaluate(() => window.noticed)).includes("Link copied"));
    await ana.locator("#notice").waitFor({ state: "hidden" });
    same(await ana.evaluate(() => navigator.clipboard.readText()), `${first}/#room=past`);
    await ana.evaluate(() => { navigator.clipboard.writeText = () => Promise.reject(new Error("no")); });
    await room(ana, "past").getByRole("button", { name: "Copy link" }).click();
    await ana.getByText(`Copy this link: ${first}/#room=past`).waitFor();
    await ana.locator("#notice").getByRole("button", { name: "Close" }).click();
    await ana.locator("#notice").waitFor({ state: "hidden" });
  });

  await check("no error in any console", async () => {
    const complaints = [ana, bo].flatMap(unforeseen);
    holds(complaints.length === 0, complaints.join("\n"));
  });
} finally {
  await cluster.stop();
  await finish();
}
