// The page where access is not open: real tokens, and what each lets a person do.
//
//   node access.mjs target/debug/gateway

import { createHash, createHmac } from "node:crypto";
import { check, connected, enter, finish, holds, member, online, open, person, rename, room, said, same, showPeople, write } from "./support.mjs";
import { Cluster, until } from "./nodes.mjs";

const SECRET = "0123456789abcdef0123456789abcdef-for-this-test";
const coded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

// A token as a site's backend would sign it.
function token(claims, secret = SECRET) {
  const body = `${coded({ alg: "HS256", typ: "JWT" })}.${coded({ aud: "chat", exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`;
  return `${body}.${createHmac("sha256", secret).update(body).digest("base64url")}`;
}

const KEY = "a-key-of-an-operator-0123456789abcdef";
const keys = `api_keys = ["ops:admin:${createHash("sha256").update(KEY).digest("hex")}"]`;
const cluster = await Cluster.start(process.argv[2], 2, { config: `jwt_secret = "${SECRET}"\njwt_audience = ["chat"]\n${keys}\n` });
const give = async (page, text) => {
  if (!(await page.getByRole("dialog").isVisible())) await page.getByRole("button", { name: "Settings" }).click();
  await page.getByLabel("Access token").fill(text);
  await page.getByLabel("Access token").press("Enter");
};

try {
  const [first, second] = [await cluster.balancer(0, 1), await cluster.balancer(1, 0)];
  const ana = await person();
  const bo = await person();

  await check("without a token, or with a wrong one, the page says what is missing", async () => {
    await ana.goto(`${first}/#room=team-1`);
    const words = ana.locator("#notice").getByText("If it asks for an access token, give one in the settings");
    await words.waitFor();
    const wrong = token({ sub: "ana", rooms: ["team-*"] }, "another secret, of another site, that is long");
    await give(ana, wrong);
    await until("it was refused, and is tried again", () => cluster.heads(first).filter((head) => head.includes(wrong)).length > 1);
    await words.waitFor();
    same(await ana.locator("#status").getAttribute("data-state"), "waiting");
  });

  await check("the right one lets in, under the name that it gives", async () => {
    await give(ana, token({ sub: "ana", name: "Ana of Accounts", rooms: ["team-*"] }));
    await connected(ana);
    await online(ana, 1);
    await showPeople(ana);
    await member(ana, "Ana of Accounts (you)").waitFor();
    await open(bo, `${second}/#room=team-1&token=${token({ sub: "bo", rooms: { join: ["*"], history: ["*"], presence: ["*"], publish: ["open-*"] } })}`);
    await rename(bo, "Bo");
    await member(ana, "Bo").waitFor();
    await write(ana, "Only for members");
    await said(bo, "Only for members").waitFor();
  });

  await check("a name that the token gives is kept, and that is said", async () => {
    await rename(ana, "Someone else");
    await ana.locator("#name-problem").getByText("Your name comes with your token and stays Ana of Accounts").waitFor();
    await ana.locator("#name").press("Escape");
  });

  await check("a room that the token does not open says so, and the others go on", async () => {
    await enter(ana, "board-1");
    await room(ana, "board-1").locator(".room-notice").getByText("You may not enter this room").waitFor();
    await write(ana, "Still here", "team-1");
    await said(bo, "Still here").waitFor();
    await room(ana, "board-1").getByRole("button", { name: "Leave" }).click();
    await room(ana, "team-1").waitFor();
  });

  await check("who may only read is told so, and keeps what was written", async () => {
    await write(bo, "May I?");
    const failed = room(bo).locator(".pending .failed");
    await failed.locator(".state").getByText("Not sent: you may not write here").waitFor();
    await failed.getByText("May I?").waitFor();
    same(await said(ana, "May I?").count(), 0);
    await enter(bo, "open-1");
    await write(bo, "Here I may", "open-1");
    await said(bo, "Here I may", "open-1").waitFor();
  });

  const order = async (method, path, body) => {
    const answer = await fetch(`${second}/api/v1/${path}`, { method, body: body && JSON.stringify(body),
      headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" } });
    holds(answer.ok, `${method} ${path}: ${answer.status} ${await answer.text()}`);
  };

  await check("whom an operator removes from a room reads so, and may come in again", async () => {
    const id = await bo.evaluate(() => JSON.parse(sessionStorage.getItem("mine")).at(-1));
    await order("DELETE", `rooms/team-1/members/${id}`);
    await bo.getByRole("list", { name: "Joined rooms" }).getByRole("button", { name: "team-1" }).click();
    await room(bo, "team-1").locator(".room-notice").getByText("You were removed from this room").waitFor();
    await online(ana, 1, "team-1");
    await room(bo, "team-1").getByRole("button", { name: "Come in again" }).click();
    await online(ana, 2, "team-1");
    await write(ana, "Welcome back", "team-1");
    await said(bo, "Welcome back", "team-1").waitFor();
  });

  await check("whom an operator disconnects reads why, and stays out until they want back", async () => {
    await order("POST", "users/bo/disconnect", { reconnect: false, reason: "take a break" });
    await bo.locator("#notice").getByText("An operator has ended your connection: take a break").waitFor();
    await online(ana, 1, "team-1");
    await bo.getByRole("button", { name: "Try now" }).click();
    await online(ana, 2, "team-1");
    await order("POST", "users/bo/disconnect", { reconnect: true });
    await room(bo, "team-1").locator(".system").getByText("nothing missed").last().waitFor();
    await connected(bo);
  });

  await check("the token goes along to another node", async () => {
    await cluster.kill(0);
    await connected(ana, "node-2");
    await write(ana, "On the other node", "team-1");
    await said(bo, "On the other node", "team-1").waitFor();
  });

  await check("tokens are in no address that was asked for", async () => {
    const lines = [first, second].flatMap((url) => cluster.heads(url)).map((head) => head.split("\r\n")[0]);
    holds(lines.length > 4 && !lines.some((line) => line.includes("eyJ")), lines.join("\n"));
    for (const page of [ana, bo]) holds(!page.url().includes("token"), page.url());
    await until("nothing in what stays", async () => !(await ana.evaluate(() => JSON.stringify(localStorage))).includes("eyJ"));
  });
} finally {
  await cluster.stop();
  await finish();
}
