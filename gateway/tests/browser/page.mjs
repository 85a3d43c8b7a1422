// Two people on two nodes chat through the page, in a real browser.
//
//   node page.mjs [--picture=page.png] http://127.0.0.1:1111 http://127.0.0.1:2222
//   node page.mjs --two-nodes http://balancer http://balancer     the same address, behind which there must be two nodes
//
// Prints a line per check, at last `N passed, N failed`; exits 1 when one failed.

import { check, connected, enter, finish, holds, member, online, open, person, rename, room, said, same, showPeople, texts,
  told, unforeseen, write } from "./support.mjs";

const options = process.argv.slice(2).filter((word) => word.startsWith("--"));
const [first, second] = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const picture = options.find((option) => option.startsWith("--picture="))?.slice("--picture=".length);
if (!first || !second) {
  console.error("usage: node page.mjs [--picture=page.png] [--two-nodes] NODE-URL NODE-URL");
  process.exit(2);
}

const HOSTILE = `<img src=x onerror="window.broken=1"><script>window.broken=1</script>`;

const ana = await person();
const bo = await person();
const crowd = [ana, bo];
let link = "";

await check("both nodes serve the page and say who they are", async () => {
  for (const [page, url] of [[ana, first], [bo, second]]) {
    const answer = await open(page, url);
    const policy = answer.headers()["content-security-policy"] ?? "";
    holds(policy.includes("default-src 'none'"), `no content security policy: ${policy}`);
  }
  const [one, two] = await Promise.all(crowd.map((page) => page.locator("#status-text").textContent()));
  holds(/^Connected to \S+$/.test(one), one);
  holds(one !== two || (first === second && !options.includes("--two-nodes")), `the same node twice: ${one}`);
});

await check("a room is created by one and entered by its link by the other", async () => {
  await rename(ana, "Ana");
  await rename(bo, "Bo");
  await ana.getByRole("button", { name: "New room" }).click();
  await room(ana).waitFor();
  await online(ana, 1);
  link = new URL(ana.url()).hash;
  holds(link.startsWith("#room="), `no room in the address: ${ana.url()}`);
  holds(/^#room=([2-9a-z]{4}-){2}[2-9a-z]{4}$/.test(link), `not an id of ours: ${link}`);
  await enter(bo, new URL(link, second).href);
  for (const page of crowd) await online(page, 2);
});

await check("members and who came are shown on both sides", async () => {
  for (const page of crowd) await showPeople(page);
  await member(ana, "Bo").waitFor();
  await member(ana, "Ana (you)").waitFor();
  await member(bo, "Ana").waitFor();
  await told(ana, "Bo came in").or(told(ana, /^guest-\w+ is now Bo$/)).waitFor();
});

await check("what one says, the other reads, in order", async () => {
  await write(ana, "Hello from the first node. Can you hear me over there?");
  await said(bo, "Hello from the first node. Can you hear me over there?").waitFor();
  await write(bo, "Loud and clear, on the second one.");
  await said(ana, "Loud and clear, on the second one.").waitFor();
  await write(ana, "Same order for everyone, wherever they are connected.");
  await said(bo, "Same order for everyone, wherever they are connected.").waitFor();
  await write(bo, "And if my node goes away, I come back on another and miss nothing.");
  await said(ana, "And if my node goes away, I come back on another and miss nothing.").waitFor();
  const [left, right] = await Promise.all(crowd.map((page) => texts(page)));
  same(left, right);
  same(left.length, 4);
});

await check("a third person finds the history, and is announced", async () => {
  const cleo = await person({ hasTouch: true, viewport: { width: 390, height: 780 }, colorScheme: "dark" });
  crowd.push(cleo);
  await cleo.goto(new URL(link, second).href);
  await room(cleo).locator(".message").nth(3).waitFor();
  await rename(cleo, "Cleo");
  await member(ana, "Cleo").waitFor();
  await online(ana, 3);
  const wide = await cleo.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  holds(!wide, "the page is wider than a phone");
  if (picture) await cleo.screenshot({ path: picture.replace(/(\.\w+)$/, "-phone$1") });
});

await check("the picture is taken", async () => {
  if (picture) await ana.screenshot({ path: picture });
});

await check("a reload keeps the room and the name", async () => {
  await bo.reload();
  await room(bo).locator(".message").nth(3).waitFor();
  await online(bo, 3);
  await member(bo, "Bo (you)").waitFor();
});

await check("a second room stands beside the first", async () => {
  await enter(bo, "second.room");
  await room(bo, "second.room").waitFor();
  await bo.setViewportSize({ width: 1300, height: 680 });
  for (const id of [link.slice(6), "second.room"]) await room(bo, id).waitFor({ state: "visible" });
  await write(bo, "In the second", "second.room");
  await said(bo, "In the second", "second.room").waitFor();
  await bo.getByRole("button", { name: "Side by side" }).click();
  await room(bo, link.slice(6)).waitFor({ state: "hidden" });
});

await check("what was not read behind it is counted", async () => {
  await write(ana, "While you were away");
  await bo.getByText("1 new", { exact: true }).waitFor();
  holds((await bo.title()).startsWith("(1) "), await bo.title());
  await bo.getByRole("list", { name: "Joined rooms" }).getByRole("button", { name: link.slice(6) }).click();
  await said(bo, "While you were away").waitFor();
  await bo.getByText("1 new", { exact: true }).waitFor({ state: "detached" });
  await room(bo, "second.room").waitFor({ state: "hidden" });
});

await check("a room that is left is gone, here and for a reload", async () => {
  await bo.getByRole("list", { name: "Joined rooms" }).getByRole("button", { name: "second.room" }).click();
  await room(bo, "second.room").getByRole("button", { name: "Leave" }).click();
  await room(bo, link.slice(6)).waitFor();
  same(await bo.getByRole("list", { name: "Joined rooms" }).getByRole("listitem").count(), 1);
  await bo.reload();
  await room(bo).locator(".message").nth(4).waitFor();
  same(await bo.getByRole("list", { name: "Joined rooms" }).getByRole("listitem").count(), 1);
});

await check("after a lost connection nothing is missing and nothing is there twice", async () => {
  const sockets = [];
  const dee = await person();
  await dee.routeWebSocket(/\/connect/, (page) => sockets.push({ page, node: page.connectToServer() }));
  await dee.goto(new URL(link, first).href);
  await room(dee).locator(".message").nth(4).waitFor();
  await sockets[0].node.close();
  await sockets[0].page.close({ code: 1012, reason: "as a drain would" });
  await write(bo, "Said while Dee was away");
  await said(dee, "Said while Dee was away").waitFor();
  await connected(dee);
  await write(dee, "Back again");
  await said(bo, "Back again").waitFor();
  await room(dee).locator(".system").getByText("nothing missed").waitFor();
  holds(sockets.length > 1, "it never came back");
  same(...(await Promise.all([bo, dee].map((page) => texts(page)))));
  await dee.context().close();
});

await check("a hostile name and message are shown as text", async () => {
  await rename(ana, `<img src=x onerror=broken=1>`);
  await write(ana, HOSTILE);
  await said(bo, HOSTILE).waitFor();
  await member(bo, "<img src=x onerror=broken=1>").waitFor();
  for (const page of crowd) {
    holds(await page.evaluate(() => window.broken === undefined), "script ran");
    holds((await page.locator("main img, main script, header img").count()) === 0, "markup got in");
  }
});

await check("a refused request is readable and the page goes on", async () => {
  await enter(bo, "not a room!");
  await bo.getByRole("alert").getByText("not a room!").waitFor();
  same(await bo.getByLabel("Join a room").inputValue(), "not a room!", "what was typed is gone");
  await write(bo, "Still here");
  await said(ana, "Still here").waitFor();
});

await check("leaving is seen by the others", async () => {
  await bo.close();
  await online(ana, 2);
  await told(ana, "Bo left").last().waitFor();
});

await check("no error in any console", async () => {
  const complaints = crowd.flatMap(unforeseen);
  holds(complaints.length === 0, complaints.join("\n"));
});

await finish();
