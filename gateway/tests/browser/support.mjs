// What the browser tests share: a browser, people in it, and the count of what held.
//
// Needs playwright-core (and axe-core), which NODE_PATH may point at, and a Chromium (CHROMIUM, default /usr/bin/chromium).

import { createRequire } from "node:module"; // unlike `import`, it heeds NODE_PATH

export const installed = createRequire(import.meta.url);
const { chromium } = installed("playwright-core");

const DEADLINE = 60_000; // ms: a client that finds nobody a few times waits up to half of it
let passed = 0;
const failures = [];
let browser;

export async function check(what, run) {
  try {
    await run();
    passed += 1;
    console.log(`ok   ${what}`);
  } catch (error) {
    failures.push(what);
    console.log(`FAIL ${what}\n     ${String(error.stack ?? error).split("\n").slice(0, 8).join("\n     ")}`);
  }
}

export function holds(truth, words) {
  if (!truth) throw new Error(words);
}

export const same = (left, right, words = "") => holds(JSON.stringify(left) === JSON.stringify(right),
  `${words}\n${JSON.stringify(left)}\nagainst\n${JSON.stringify(right)}`);

// The last line that scripts/test.sh reads; the exit code says the same.
export async function finish() {
  await browser?.close();
  console.log(`${passed} passed, ${failures.length} failed`);
  process.exitCode = failures.length ? 1 : 0;
}

// A tab of its own person: nothing is shared between two. `complaints` is what its console said, and its policy.
export async function person(options = {}) {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
  });
  const context = await browser.newContext({ viewport: { width: 1100, height: 680 }, colorScheme: "light", locale: "en-US", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  page.complaints = [];
  page.dialogs = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && page.complaints.push(line.text()));
  page.on("dialog", (dialog) => {
    page.dialogs.push(dialog.message());
    return dialog.dismiss();
  });
  return page;
}

// A browser says in the console that a socket was lost, or nothing answered; that is what some tests do to it.
export const unforeseen = (page) => page.complaints.filter((text) => !/^WebSocket connection to 'ws|resource: net::ERR_/.test(text));

// ---- what people do and see

export const open = async (page, url) => {
  const answer = await page.goto(url);
  await connected(page);
  return answer;
};
export const connected = (page, node) => (node
  ? page.locator("#status-text").getByText(`Connected to ${node}`, { exact: true })
  : page.locator('#status[data-state="open"]')).waitFor();
export const rename = async (page, name) => {
  await page.locator("#name").fill(name);
  await page.locator("#name").press("Enter");
};
export const enter = async (page, room) => {
  await page.locator("#join-room").fill(room);
  await page.locator("#join-room").press("Enter");
};
export const room = (page, id) => page.locator(id ? `.room[data-room="${id}"]` : ".room.current");
export const write = async (page, text, id) => {
  await room(page, id).locator("textarea").fill(text);
  await room(page, id).locator("textarea").press("Enter");
};
// Many at once, by another client of the same library, in a page that shows none of it.
export const publish = (page, id, count, from = 0) => page.evaluate(async ([id, count, from]) => {
  const { Roomcast } = await import("/roomcast.js");
  const client = new Roomcast(`ws://${location.host}/connect`, { name: "Robot" });
  const joined = client.join(id);
  await Promise.all(Array.from({ length: count }, (_, number) => joined.publish({ text: `line ${from + number}` })));
  await client.close();
}, [id, count, from]);
export const said = (page, text, id) => room(page, id).locator(".lines .message .text").getByText(text, { exact: true });
export const texts = (page, id) => room(page, id).locator(".lines .message .text").allTextContents();
export const told = (page, text, id) => room(page, id).locator(".system").getByText(text, { exact: true });
export const online = (page, count, id) => room(page, id).locator(".online").getByText(`${count} online`, { exact: true }).waitFor();
export const member = (page, name, id) => room(page, id).locator(".people li").getByText(name, { exact: true });
export const people = (page, id) => room(page, id).locator(".people li").allTextContents();
export const showPeople = async (page, id) => {
  const button = room(page, id).locator(".online");
  if ((await button.getAttribute("aria-expanded")) === "false") await button.click();
};
