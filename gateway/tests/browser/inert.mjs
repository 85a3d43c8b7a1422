// What strangers send is text and nothing else: names, rooms and messages that try to be markup, links or layout.
//
//   node inert.mjs target/debug/gateway

import { check, enter, finish, holds, member, open, person, rename, room, said, same, showPeople, unforeseen, write } from "./support.mjs";
import { Cluster, until } from "./nodes.mjs";

const NAMES = [
  `<img src=x onerror=alert(1)>`, `"><script>alert(1)</script>`, "\u202Egnirts desrever", "javascript:alert(1)", "Z\u0351\u036B\u0343\u036A\u0302\u036B\u033D\u034F\u0334\u0319\u0324\u031E".repeat(2),
  "</bdi></li></ul><b>out</b>", "&lt;b&gt;", "Ana\u2066\u2067", "{name} {count}", "__proto__",
];
const MESSAGES = [
  `<img src=x onerror="alert(1)"><script>alert(1)</script>`, `<svg onload=alert(1)>`, `<iframe srcdoc="<script>alert(1)</script>"></iframe>`,
  `</div></li></ol><h1>out</h1>`, "javascript:alert(1)", `<a href="javascript:alert(1)">click</a>`, "[click](javascript:alert(1))",
  "\u202E\u2067right to left, never ended", "w".repeat(1024), "Z\u0351\u036B\u0343\u036A\u0302\u036B\u033D\u034F\u0334\u0319".repeat(80), "&amp;&lt;script&gt;",
  "<style>*{display:none}</style>", "\u0000\u0007\u001b[31mred", "{{7*7}} ${7*7} {name}", "\u200B\u200B\u200B", "<form action=//evil.example><button>go",
  "a\n\n\nb", "<base href=//evil.example>", `<meta http-equiv="refresh" content="0;url=//evil.example">`, "\uD83D\uDC69\u200D\uD83D\uDCBB \u{1F1F7}\u{1F1FA}",
];
// What other clients may send instead of { text }.
const DATA = [null, 7, true, [], { text: 7 }, { text: null }, { text: { toString: "<b>" } }, { html: "<b>x</b>" }, "<i>bare</i>", { __proto__: null, a: [[[]]] }];

const cluster = await Cluster.start(process.argv[2], 2);
try {
  const [first, second] = [await cluster.balancer(0), await cluster.balancer(1)];
  const eve = await person();
  const ana = await person();
  const requests = [];
  ana.on("request", (request) => requests.push(request.url()));
  await open(eve, first);
  await open(ana, second);
  for (const page of [eve, ana]) {
    await page.evaluate(() => {
      window.violations = [];
      document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => window.violations.push(`${violatedDirective} ${blockedURI}`));
    });
    await enter(page, "open.house");
    await room(page).waitFor();
    await showPeople(page);
  }
  await rename(ana, "Ana");
  await member(eve, "Ana").waitFor();
  const before = requests.length;
  // Every kind of element that the page itself makes; anything else came from a stranger.
  const kinds = () => ana.evaluate(() => [...new Set([...document.body.querySelectorAll("*")].map(({ localName }) => localName))].sort());
  await write(ana, "words");
  await said(ana, "words").waitFor();
  const own = await kinds();

  await check("hostile names are shown as they are", async () => {
    for (const name of NAMES) {
      await eve.locator("#name").evaluate((field) => field.removeAttribute("maxlength"));
      await rename(eve, name);
      await until(`${name} is listed`, async () => (await room(ana).locator(".people li").allTextContents()).includes(name.trim()));
      await write(eve, `I am ${name}`);
      await until(`${name} wrote`, async () => (await room(ana).locator(".lines .author").allTextContents()).includes(name.trim()));
    }
  });

  await check("hostile messages are shown as they are", async () => {
    for (const [number, text] of MESSAGES.entries()) {
      await eve.locator(".room.current textarea").evaluate((field, value) => { field.value = value; }, text);
      await eve.locator(".room.current textarea").press("Enter");
      if (!text.trim()) continue;
      const shown = () => room(ana).locator(".lines .message .text").last().evaluate((element) => element.textContent);
      await until(`message ${number} arrives`, async () => (await shown()) === text.trim());
    }
  });

  await check("so is what other clients send", async () => {
    const sent = await eve.evaluate(async (data) => {
      const { Roomcast } = await import("/roomcast.js");
      const client = new Roomcast(`ws://${location.host}/connect`);
      const joined = client.join("open.house");
      for (const one of data) await joined.publish(one);
      return client.close().then(() => data.length);
    }, DATA);
    same(sent, DATA.length);
    const expected = DATA.map((data) => (typeof data === "string" ? data : JSON.stringify(data)));
    await until("all of it is there", async () => {
      const texts = await room(ana).locator(".lines .message .text").allTextContents();
      return JSON.stringify(texts.slice(-DATA.length)) === JSON.stringify(expected);
    });
  });

  await check("hostile rooms are refused in words, in the field and in the address", async () => {
    for (const id of ["<img src=x onerror=alert(1)>", "a b", "../../etc/passwd", "ж", "a".repeat(129), "\u202Ea", "javascript:alert(1)", "a%00b"]) {
      await enter(ana, id);
      await ana.locator("#notice").getByText("cannot be a room").waitFor();
      await ana.locator("#notice-close").click();
      await ana.evaluate((text) => { location.hash = `room=${encodeURIComponent(text)}`; }, id);
      await until("the address is looked at", () => ana.evaluate(() => !document.querySelector("#notice").hidden));
      same(await ana.locator(".room").count(), 1, `${id} was entered`);
    }
    await ana.evaluate(() => { location.hash = "room=%E0%A4%A&room=__proto__&token="; });
    await room(ana, "__proto__").waitFor();
    await room(ana, "__proto__").getByRole("button", { name: "Leave" }).click();
    await room(ana, "open.house").waitFor();
  });

  await check("a line of text stays in its place, whatever it is made of", async () => {
    const wide = await ana.evaluate(() => [...document.querySelectorAll(".log, .people, header, nav, .room-head")]
      .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.className || box.localName));
    same(wide, [], "wider than their place");
    same(await ana.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, "the page is too wide");
    // The words after a name with an override are still read from the left.
    const system = room(ana).locator(".system").filter({ hasText: "\u202E" }).first();
    same(await system.locator("bdi").count(), 2, "names are not set apart");
  });

  await check("nothing of it became an element, a request, a dialog or a violation", async () => {
    same(await kinds(), own, "new kinds of elements");
    same(await ana.locator(".log a, .log img, .people a, .people img, [onerror], [onload], [style], [href^='javascript']").count(), 0);
    const foreign = requests.slice(before).filter((url) => !url.startsWith(second));
    same(foreign, []);
    for (const page of [ana, eve]) {
      same(page.dialogs, []);
      same(await page.evaluate(() => window.violations), []);
      same(await page.evaluate(() => ({}).polluted), undefined);
    }
  });

  await check("the policy holds against a page that is not ours", async () => {
    const stopped = await ana.evaluate(async () => {
      const image = document.createElement("img");
      const failed = new Promise((resolve) => { image.onerror = () => resolve(true); image.onload = () => resolve(false); });
      image.src = "http://127.0.0.1:9/pixel.png";
      const script = document.createElement("script");
      script.textContent = "window.ran = 1";
      document.body.append(image, script);
      const outcome = [await failed, window.ran === undefined, window.violations.length >= 2];
      image.remove();
      script.remove();
      return outcome;
    });
    same(stopped, [true, true, true]);
    ana.complaints = ana.complaints.filter((text) => !/Content Security Policy/i.test(text));
  });

  await check("a name that is too long is refused in words, and kept in its field", async () => {
    await eve.locator("#name").evaluate((field) => field.removeAttribute("maxlength"));
    await rename(eve, "x".repeat(65));
    await eve.locator("#name-problem").getByText("1 to 64 bytes").waitFor();
    same(await eve.locator("#name").inputValue(), "x".repeat(65));
    await until("the field has the focus again", () => eve.evaluate(() => document.activeElement.id === "name"));
    await eve.locator("#name").press("Escape");
    await eve.locator("#name-problem").waitFor({ state: "hidden" });
  });

  await check("no error in any console", async () => {
    const complaints = [ana, eve].flatMap(unforeseen);
    holds(complaints.length === 0, complaints.join("\n"));
  });
} finally {
  await cluster.stop();
  await finish();
}
