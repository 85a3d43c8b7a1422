// Two people on two nodes chat through the plain page, in a real browser.
//
//   node page.mjs [--picture=page.png] http://127.0.0.1:1111 http://127.0.0.1:2222
//   node page.mjs --two-nodes http://balancer http://balancer     the same address, behind which there must be two nodes
//
// Needs playwright-core, which NODE_PATH may point at, and a Chromium (CHROMIUM, default /usr/bin/chromium).
// Prints a line per check, at last `N passed, N failed`; exits 1 when one failed.

import { createRequire } from "node:module"; // unlike `import`, it heeds NODE_PATH

const { chromium } = createRequire(import.meta.url)("playwright-core");

const options = process.argv.slice(2).filter((word) => word.startsWith("--"));
const [first, second] = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const picture = options.find((option) => option.startsWith("--picture="))?.slice("--picture=".length);
if (!first || !second) {
  console.error("usage: node page.mjs [--picture=page.png] [--two-nodes] NODE-URL NODE-URL");
  process.exit(2);
}

const DEADLINE = 15_000;
const HOSTILE = `<img src=x onerror="window.broken=1"><script>window.broken=1</script>`;
let passed = 0;
const failures = [];

async function check(what, run) {
  try {
    await run();
    passed += 1;
    console.log(`ok   ${what}`);
  } catch (error) {
    failures.push(what);
    console.log(`FAIL ${what}\n     ${String(error.message ?? error).split("\n").slice(0, 6).join("\n     ")}`);
  }
}

function holds(truth, words) {
  if (!truth) throw new Error(words);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
});

// A tab of its own person: nothing is shared between the two.
async function person(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 680 }, colorScheme: "light", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && page.complaints.push(line.text()));
  return page;
}

const connected = (page) => page.locator('#status[data-state="open"]').waitFor();
const rename = async (page, name) => {
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("Your name").press("Enter");
};
const say = async (page, text) => {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
};
const said = (page, text) => page.locator(".message .text").getByText(text, { exact: true });
const online = (page, count) => page.locator("#online").getByText(`${count} online`, { exact: true }).waitFor();
const member = (page, name) => page.locator("#members li").filter({ has: page.getByText(name.replace(" (you)", ""), { exact: true }) })
  .filter({ hasText: name });

const ana = await person();
const bo = await person();
const crowd = [ana, bo];
let link = "";

await check("both nodes serve the page and say who they are", async () => {
  for (const [page, url] of [[ana, first], [bo, second]]) {
    const answer = await page.goto(url);
    const policy = answer.headers()["content-security-policy"] ?? "";
    holds(policy.includes("default-src 'none'"), `no content security policy: ${policy}`);
    await connected(page);
  }
  const [one, two] = await Promise.all(crowd.map((page) => page.locator("#status-text").textContent()));
  holds(/^Connected to \S+$/.test(one), one);
  holds(one !== two || (first === second && !options.includes("--two-nodes")), `the same node twice: ${one}`);
});

await check("a room is created by one and entered by its link by the other", async () => {
  await rename(ana, "Ana");
  await rename(bo, "Bo");
  await ana.getByRole("button", { name: "New room" }).click();
  await ana.locator("#room").waitFor();
  await online(ana, 1);
  link = new URL(ana.url()).hash;
  holds(link.startsWith("#room="), `no room in the address: ${ana.url()}`);
  await bo.getByLabel("Join a room").fill(new URL(link, second).href);
  await bo.keyboard.press("Enter");
  for (const page of crowd) await online(page, 2);
});

await check("members and who came are shown on both sides", async () => {
  await member(ana, "Bo").waitFor();
  await member(ana, "Ana (you)").waitFor();
  await member(bo, "Ana").waitFor();
  await ana.locator(".system").getByText("Bo joined").waitFor();
});

await check("what one says, the other reads, in order", async () => {
  await say(ana, "Hello from the first node. Can you hear me over there?");
  await said(bo, "Hello from the first node. Can you hear me over there?").waitFor();
  await say(bo, "Loud and clear, on the second one.");
  await said(ana, "Loud and clear, on the second one.").waitFor();
  await say(ana, "Same order for everyone, wherever they are connected.");
  await said(bo, "Same order for everyone, wherever they are connected.").waitFor();
  await say(bo, "And if my node goes away, I come back on another and miss nothing.");
  await said(ana, "And if my node goes away, I come back on another and miss nothing.").waitFor();
  const [left, right] = await Promise.all(crowd.map((page) => page.locator(".message .text").allTextContents()));
  holds(left.length === 4 && left.join("|") === right.join("|"), `${left.join("|")} against ${right.join("|")}`);
});

await check("a third person finds the history, and is announced", async () => {
  const cleo = await person({ viewport: { width: 390, height: 780 }, colorScheme: "dark" });
  crowd.push(cleo);
  await cleo.goto(new URL(link, second).href);
  await cleo.locator(".message").nth(3).waitFor();
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
  await bo.locator(".message").nth(3).waitFor();
  await online(bo, 3);
  await member(bo, "Bo (you)").waitFor();
});

await check("a second room stands beside the first, with a count of what was not read", async () => {
  await bo.getByLabel("Join a room").fill("second.room");
  await bo.keyboard.press("Enter");
  await bo.locator("#room-name").getByText("second.room").waitFor();
  await say(ana, "While you were away");
  await bo.getByText("1 new", { exact: true }).waitFor();
  await bo.getByRole("tab", { name: link.slice(6) }).click();
  await said(bo, "While you were away").waitFor();
  await bo.getByRole("tab", { name: "second.room" }).click();
  await bo.getByRole("button", { name: "Leave" }).click();
  await bo.locator("#room-name").getByText(link.slice(6)).waitFor();
  holds((await bo.getByRole("tab").count()) === 1, "the tab stayed");
});

await check("after a lost connection nothing is missing and nothing is there twice", async () => {
  const sockets = [];
  const dee = await person();
  await dee.routeWebSocket(/\/connect/, (page) => sockets.push({ page, node: page.connectToServer() }));
  await dee.goto(new URL(link, first).href);
  await dee.locator(".message").nth(4).waitFor();
  await sockets[0].node.close();
  await sockets[0].page.close({ code: 1012, reason: "as a drain would" });
  await say(bo, "Said while Dee was away");
  await said(dee, "Said while Dee was away").waitFor();
  await connected(dee);
  await say(dee, "Back again");
  await said(bo, "Back again").waitFor();
  holds(sockets.length > 1, "it never came back");
  const [left, right] = await Promise.all([bo, dee].map((page) => page.locator(".message .text").allTextContents()));
  holds(left.join("|") === right.join("|"), `${left.join("|")} against ${right.join("|")}`);
  await dee.context().close();
});

await check("a hostile name and message are shown as text", async () => {
  await rename(ana, `<img src=x onerror=broken=1>`);
  await say(ana, HOSTILE);
  await said(bo, HOSTILE).waitFor();
  await member(bo, "<img src=x onerror=broken=1>").waitFor();
  for (const page of crowd) {
    holds(await page.evaluate(() => window.broken === undefined), "script ran");
    holds((await page.locator("main img, main script, aside img").count()) === 0, "markup got in");
  }
});

await check("a refused request is readable and the page goes on", async () => {
  await bo.getByLabel("Join a room").fill("not a room!");
  await bo.keyboard.press("Enter");
  await bo.getByRole("alert").getByText("bad_room").waitFor();
  await say(bo, "Still here");
  await said(ana, "Still here").waitFor();
});

await check("leaving is seen by the others", async () => {
  await bo.close();
  await online(ana, 2);
  await ana.locator(".system").getByText("Bo left").nth(1).waitFor(); // the first was the reload
});

await check("no error in any console", async () => {
  const complaints = crowd.flatMap((page) => page.complaints);
  holds(complaints.length === 0, complaints.join("\n"));
});

await browser.close();
console.log(`${passed} passed, ${failures.length} failed`);
process.exit(failures.length ? 1 : 0);
