// The page that a run writes, in a real browser: light, dark, and as wide as a phone.
//
//   node report.mjs [--picture=report.png] target/debug/loadtest
//
// Makes the page with a short storm against a gateway in the load tester's own process. Needs playwright-core, which
// NODE_PATH may point at, and a Chromium (CHROMIUM, default /usr/bin/chromium).
// Prints a line per check, at last `N passed, N failed`; exits 1 when one failed.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { check, finish, holds, person } from "../../../gateway/tests/browser/support.mjs";

const options = process.argv.slice(2).filter((word) => word.startsWith("--"));
const [loadtest] = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const picture = options.find((option) => option.startsWith("--picture="))?.slice("--picture=".length);
if (!loadtest) {
  console.error("usage: node report.mjs [--picture=report.png] LOADTEST-BINARY");
  process.exit(2);
}

const RUN_DEADLINE = 90_000;
// Smallest ratio of luminances for text of normal size (WCAG 2, AA).
const CONTRAST = 4.5;
const SECTIONS = ["Thresholds", "Over time", "What happened", "Latency", "Audit", "Errors", "Command", "Load tester"];

const folder = mkdtempSync(join(tmpdir(), "roomcast-report-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, "r.html");
const url = pathToFileURL(file).href;

// What the run amounts to is the machine's business: this is about the page. 3 is a generator too slow.
await check("a storm of four seconds writes a page", async () => {
  const storm = "storm --self --rooms 5 --members 20 --duration 4s --first 1s --quiet --html".split(" ");
  try {
    execFileSync(loadtest, [...storm, file], { timeout: RUN_DEADLINE, stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    holds(error.status === 3, `status ${error.status}, signal ${error.signal}: ${error.stderr}`);
  }
});

async function opened(options) {
  const page = await person({ viewport: { width: 1200, height: 800 }, ...options });
  page.requests = [];
  page.on("request", (request) => page.requests.push(request.url()));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  await page.goto(url);
  return page;
}

// Text that stands directly in an element, against the first background behind it that is not transparent.
const faintest = (page) => page.evaluate(() => {
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [red, green, blue] = parts(colour).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((parts(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let worst = { ratio: 21, words: "" };
  for (const element of document.querySelectorAll("body :is(h1, h2, h3, p, dt, dd, th, td, small, span, li, code, pre)")) {
    const words = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join("").trim();
    if (!words || !element.checkVisibility() || element.closest("svg")) continue;
    const ink = getComputedStyle(element).color;
    const [light, dark] = [luminance(ink), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < worst.ratio) worst = { ratio, words: `${words.slice(0, 40)}: ${ink} on ${behind(element)}` };
  }
  return worst;
});

const looks = { light: { colorScheme: "light" }, dark: { colorScheme: "dark" },
  "390 px": { colorScheme: "light", viewport: { width: 390, height: 780 } } };
const colours = {};

for (const [look, options] of Object.entries(looks)) {
  let page;
  await check(`${look}: the page opens`, async () => {
    page = await opened(options);
  });
  if (!page) continue;

  await check(`${look}: verdict and sections are visible`, async () => {
    const title = await page.title();
    holds(/^storm (passed|failed|invalid) /.test(title), title);
    const verdict = title.split(" ")[1];
    holds(await page.locator("header").getByText(new RegExp(verdict, "i")).first().isVisible(), `no ${verdict} in the header`);
    for (const name of SECTIONS) {
      holds(await page.getByRole("heading", { name, exact: true }).first().isVisible(), `no heading ${name}`);
    }
  });

  await check(`${look}: the storm is among the events`, async () => {
    const rows = page.locator("table.events tbody tr").filter({ has: page.locator("td").getByText("storm", { exact: true }) });
    holds((await rows.count()) === 1, `${await rows.count()} storms: ${await page.locator("table.events").innerText()}`);
  });

  await check(`${look}: plots have curves`, async () => {
    for (const id of ["received", "published", "latency", "connections", "percentiles"]) {
      const curves = await page.locator(`figure#${id} svg :is(path, polyline, polygon)`).evaluateAll((shapes) =>
        shapes.filter((shape) => (shape.getAttribute("d") ?? shape.getAttribute("points") ?? "").length > 10
          && shape.getBoundingClientRect().width > 0).length);
      holds(curves > 0, `no curve in ${id}`);
    }
  });

  await check(`${look}: nothing scrolls sideways but tables and commands in their boxes`, async () => {
    const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    holds(wide <= room, `${wide} px in ${room} px`);
  });

  await check(`${look}: text stands out from what is behind it`, async () => {
    colours[look] = await page.evaluate(() => [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]);
    const worst = await faintest(page);
    holds(worst.ratio >= CONTRAST, `${worst.ratio.toFixed(2)} for ${worst.words}`);
  });

  await check(`${look}: the pointer shows values`, async () => {
    const before = await page.locator("figure#received").innerHTML();
    await page.locator("figure#received svg").first().hover();
    await page.waitForFunction((old) => document.querySelector("figure#received").innerHTML !== old, before);
  });

  await check(`${look}: nothing is fetched, refused or complained of`, async () => {
    holds(page.requests.join() === url, page.requests.join("\n"));
    const violations = await page.evaluate(() => window.violations);
    holds(violations.length === 0, violations.join("\n"));
    holds(page.complaints.length === 0, page.complaints.join("\n"));
  });

  if (picture) await page.screenshot({ path: picture.replace(/(\.\w+)$/, `-${look.replace(" ", "")}$1`), fullPage: true });
}

await check("light and dark differ", async () => {
  const { light, dark } = colours;
  holds(light && dark && light[0] !== dark[0] && light[1] !== dark[1], JSON.stringify(colours));
});

await finish();
