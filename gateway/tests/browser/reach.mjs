// For everyone: by keyboard alone, with a screen reader, on a phone, in both languages and both themes.
//
//   node reach.mjs target/debug/gateway [--pictures=DIRECTORY]

import { readFileSync } from "node:fs";
import { check, connected, enter, finish, holds, installed, online, open, person, publish, rename, room, said, same, unforeseen, write } from "./support.mjs";
import { Cluster, until } from "./nodes.mjs";

const AXE = readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");
const pictures = process.argv.find((option) => option.startsWith("--pictures="))?.slice("--pictures=".length);
const SIZES = { desktop: { viewport: { width: 1280, height: 760 } }, phone: { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true } };
const LANGUAGES = { en: "en-GB", ru: "ru-RU" };

const cluster = await Cluster.start(process.argv[2], 2);
const url = await cluster.balancer(0, 1);

// What axe-core finds, as words. Its script comes in through the debugger, which the page's policy does not concern.
async function faults(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("; ")}`);
}

const picture = async (page, name) => {
  if (pictures) await page.screenshot({ path: `${pictures}/${name}.png` });
};
const active = (page) => page.evaluate(() => {
  const at = document.activeElement;
  return at.id || at.className || at.localName;
});
const press = async (page, ...keys) => {
  for (const key of keys) await page.keyboard.press(key);
};

try {
  const bo = await person();
  await open(bo, url);
  await rename(bo, "Bo");

  await check("everything is done by keyboard alone", async () => {
    const ana = await person({ viewport: { width: 1280, height: 760 } });
    await open(ana, url);
    await press(ana, "Tab");
    same(await active(ana), "skip");
    await press(ana, "Tab");
    same(await active(ana), "name");
    await ana.keyboard.type("Ana");
    await press(ana, "Enter");
    same(await active(ana), "join-room", "there is no message box yet");
    await press(ana, "Tab", "Tab");
    same(await active(ana), "create");
    await press(ana, "Enter");
    await room(ana).waitFor();
    same(await active(ana), "TEXTAREA".toLowerCase());
    const link = new URL(ana.url()).hash;
    await enter(bo, url + link);
    await online(ana, 2);
    await ana.keyboard.type("One line");
    await press(ana, "Shift+Enter");
    await ana.keyboard.type("and another");
    await press(ana, "Enter");
    await said(bo, "One line and another").waitFor(); // as text is compared, white space is one
    same(await room(bo).locator(".lines .text").last().evaluate((element) => element.textContent), "One line\nand another");

    // A second room by its id, then to and fro.
    await press(ana, "Escape");
    same(await ana.evaluate(() => document.activeElement.textContent), link.slice(6), "not in the list");
    await press(ana, "Shift+Tab", "Shift+Tab", "Shift+Tab");
    same(await active(ana), "join-room");
    await ana.keyboard.type("second");
    await press(ana, "Enter");
    await online(ana, 1, "second");
    await press(ana, "Alt+ArrowUp");
    await until("the first is in front", async () => (await room(ana).getAttribute("data-room")) === link.slice(6));
    same(await active(ana), "textarea");
    await press(ana, "Escape", "ArrowDown");
    await until("the second is in front", async () => (await room(ana).getAttribute("data-room")) === "second");
    same(await ana.evaluate(() => document.activeElement.textContent), "second", "focus left the list");
    await press(ana, "Home");
    await until("the first is in front", async () => (await room(ana).getAttribute("data-room")) === link.slice(6));
    await press(ana, "End", "Escape");
    same(await active(ana), "textarea");

    // Members, history and leaving are buttons before the box.
    await press(ana, "Shift+Tab", "Shift+Tab", "Shift+Tab", "Shift+Tab");
    same(await ana.evaluate(() => document.activeElement.textContent), "1 online");
    await press(ana, "Enter");
    await room(ana, "second").locator(".people").waitFor();
    await press(ana, "Tab", "Tab");
    same(await ana.evaluate(() => document.activeElement.textContent), "Leave");
    await press(ana, "Enter");
    await until("the first is left over", async () => (await room(ana).getAttribute("data-room")) === link.slice(6));
    same(await active(ana), "textarea", "focus is lost with the room");

    // Settings open, are closed, and give the focus back.
    await press(ana, "Control+/");
    await ana.getByRole("dialog", { name: "Settings" }).waitFor();
    await press(ana, "Escape");
    await ana.getByRole("dialog").waitFor({ state: "hidden" });
    same(await active(ana), "textarea", "focus did not come back");
    same(unforeseen(ana), []);
    await ana.context().close();
  });

  await check("whatever has the focus shows it", async () => {
    const ana = await person({ viewport: { width: 1280, height: 760 } });
    await open(ana, `${url}/#room=seen`);
    await room(ana).waitFor();
    await ana.locator("body").press("Tab");
    const seen = new Set();
    for (let step = 0; step < 25; step += 1) {
      const shown = await ana.evaluate(() => {
        const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
        return [document.activeElement === document.body || (outlineStyle !== "none" && parseFloat(outlineWidth) >= 2), document.activeElement.outerHTML.slice(0, 80)];
      });
      holds(shown[0], `no outline: ${shown[1]}`);
      seen.add(shown[1]);
      await press(ana, "Tab");
    }
    holds(seen.size >= 10, `only ${seen.size} places: ${[...seen].join()}`);
    await ana.context().close();
  });

  await check("screen readers hear what others do, once, and not what was there before", async () => {
    const ana = await person();
    await open(ana, url);
    await ana.evaluate(() => {
      window.heard = [];
      new MutationObserver(() => window.heard.push(document.querySelector("#announcer").textContent)).observe(document.querySelector("#announcer"), { childList: true });
    });
    await enter(bo, "heard");
    for (let number = 0; number < 10; number += 1) await write(bo, `earlier ${number}`, "heard");
    await enter(ana, "heard");
    await said(ana, "earlier 9").waitFor();
    await write(ana, "my own");
    await said(bo, "my own", "heard").waitFor();
    await write(bo, "an answer", "heard");
    await until("it is read out", async () => (await ana.evaluate(() => window.heard)).includes("Bo: an answer"));
    await publish(bo, "heard", 60);
    await said(ana, "line 59").waitFor();
    await until("the flood is summed up", async () => (await ana.evaluate(() => window.heard)).some((text) => /^\d+ new messages$/.test(text)));
    const heard = await ana.evaluate(() => window.heard);
    same(heard.filter((text) => /earlier|my own/.test(text)), []);
    holds(heard.length < 30, `too much: ${heard.join(" | ")}`);
    await ana.context().close();
  });

  for (const [size, device] of Object.entries(SIZES)) {
    for (const colorScheme of ["light", "dark"]) {
      for (const [language, locale] of Object.entries(LANGUAGES)) {
        const name = `${size}-${colorScheme}-${language}`;
        await check(`${name}: axe finds nothing, empty, talking, and in the settings`, async () => {
          const page = await person({ ...device, colorScheme, locale });
          await page.goto(url);
          await page.locator('#status[data-state="open"]').waitFor();
          same(await page.evaluate(() => document.documentElement.lang), language);
          same(await faults(page), []);
          await picture(page, `${name}-empty`);
          await rename(page, language === "ru" ? "Аня" : "Ana");
          for (const id of [`talk-${name}`, `more-${name}`]) await enter(page, id);
          await enter(bo, `talk-${name}`);
          await write(bo, "Hello there.", `talk-${name}`);
          await write(bo, "A second line.", `talk-${name}`);
          await page.locator("#tabs button").first().evaluate((button) => button.click());
          await said(page, "A second line.").waitFor();
          await write(page, language === "ru" ? "Здравствуйте!" : "Hi!");
          await room(page).locator(".online").click();
          await page.locator("#name").evaluate((field) => field.removeAttribute("maxlength"));
          await rename(page, "x".repeat(70));
          await page.locator("#name-problem").waitFor();
          await enter(page, "no room!");
          await page.locator("#notice").waitFor();
          same(await faults(page), []);
          await picture(page, name);
          same(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, "wider than the screen");
          await page.locator("#settings-open").click();
          same(await faults(page), []);
          await picture(page, `${name}-settings`);
          same(unforeseen(page), []);
          await page.context().close();
        });
      }
    }
  }

  await check("on a phone, everything is large enough for a finger", async () => {
    for (const entered of [false, true]) {
      const page = await person({ ...SIZES.phone });
      await page.routeWebSocket(/connect/, (client) => {
        const node = client.connectToServer();
        client.onMessage((text) => (entered || !text.includes('"join"')) && node.send(text));
      });
      await open(page, `${url}/#room=finger`);
      await room(page).waitFor();
      if (entered) await online(page, 1);
      const small = await page.evaluate(() => [...document.querySelectorAll("button, input, textarea")].filter((one) => one.checkVisibility())
        .map((one) => [one.id || one.className, one.getBoundingClientRect()]).filter(([, box]) => box.width < 24 || box.height < 24).map(([id]) => id));
      same(small, []);
      await page.context().close();
    }
  });

  await check("language and theme are chosen, at once in force and remembered", async () => {
    const page = await person({ colorScheme: "light" });
    await enter(bo, "talk-lang");
    await open(page, `${url}/#room=talk-lang`);
    await write(bo, "Hello there.", "talk-lang");
    await room(page).waitFor();
    await page.locator("#settings-open").click();
    await page.locator("#language").selectOption("ru");
    await page.locator("#theme").selectOption("dark");
    const inForce = async () => {
      same(await page.evaluate(() => document.documentElement.lang), "ru");
      same(await page.evaluate(() => getComputedStyle(document.documentElement).colorScheme), "dark");
      await page.locator("#status-text").getByText(/^Подключено к node-\d$/).waitFor();
      await room(page).locator(".online").getByText("2 в сети").waitFor();
      await room(page).locator(".day").getByText("Сегодня").first().waitFor();
      same(await room(page).locator("textarea").getAttribute("aria-label"), "Сообщение в комнату talk-lang");
      same(await room(page).locator("textarea").getAttribute("placeholder"), "Сообщение");
    };
    await inForce();
    await page.reload();
    await inForce();
    await page.context().close();
  });

  await check("both languages say the same things, and count as they should", async () => {
    const page = await person();
    await open(page, url);
    const found = await page.evaluate(async () => {
      const [{ english }, { russian }, words] = await Promise.all(["/english.js", "/russian.js", "/words.js"].map((file) => import(file)));
      const names = (entry) => [...new Set(JSON.stringify(entry).match(/\{\w+\}/g) ?? [])].sort().join();
      const differing = [...new Set([...Object.keys(english), ...Object.keys(russian)])].filter((key) => !(key in english) || !(key in russian)
        || names(english[key]) !== names(russian[key]));
      const forms = ["one", "few", "many", "other"];
      const incomplete = Object.keys(russian).filter((key) => typeof russian[key] === "object" && forms.some((form) => !(form in russian[key])));
      const counted = {};
      for (const language of ["en", "ru"]) {
        words.speak(language);
        counted[language] = [1, 2, 5, 11, 21, 22, 1000].map((count) => words.say("newMessages", { count }).replace(/\s/g, " "));
      }
      // Keys that the files of the page ask for by name.
      const files = await Promise.all(["", "app.js", "rooms.js", "log.js", "video.js", "words.js"].map((file) => fetch(`/${file}`).then((answer) => answer.text())));
      const asked = files.join("\n").matchAll(/(?:say|tell|label|notice|system|nameProblem)\([^"()]*"(\w+)"|data-(?:say|label|hint)="(\w+)"/g);
      const unknown = [...asked].map(([, one, two]) => one ?? two).filter((key) => !(key in english));
      const unused = Object.keys(english).filter((key) => !files.some((text) => new RegExp(`["]${key}"`).test(text)));
      return { differing, incomplete, counted, unknown, unused };
    });
    same(found.differing, []);
    same(found.incomplete, []);
    same(found.unknown, []);
    same(found.unused, []);
    same(found.counted.en, ["1 new message", "2 new messages", "5 new messages", "11 new messages", "21 new messages", "22 new messages", "1,000 new messages"]);
    same(found.counted.ru, ["1 новое сообщение", "2 новых сообщения", "5 новых сообщений", "11 новых сообщений", "21 новое сообщение",
      "22 новых сообщения", "1 000 новых сообщений"]);
    await page.context().close();
  });

  await check("nothing moves where less motion is asked for", async () => {
    const page = await person({ reducedMotion: "reduce" });
    await page.routeWebSocket(/\/connect/, () => {}); // never answers: the dot would pulse
    await page.goto(url);
    await page.locator('#status[data-state="waiting"]').waitFor();
    same(await page.evaluate(() => document.getAnimations().length), 0);
    const still = await person({ reducedMotion: "no-preference" });
    await still.routeWebSocket(/\/connect/, () => {});
    await still.goto(url);
    await until("the dot pulses", () => still.evaluate(() => document.getAnimations().length > 0));
  });

  await check("no error in any console", async () => {
    const complaints = unforeseen(bo);
    holds(complaints.length === 0, complaints.join("\n"));
  });
} finally {
  await cluster.stop();
  await finish();
}
