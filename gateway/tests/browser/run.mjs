// All browser tests of the page, one after the other: run.mjs GATEWAY. The last line is `N passed, N failed`.

import { spawn } from "node:child_process";
import path from "node:path";

const gateway = path.resolve(process.argv[2] ?? "target/debug/gateway");
const here = import.meta.dirname;
const files = ["rooms", "door", "inert", "reach", "video", "killed"];
const runs = [
  [path.join(here, "../cluster.sh"), "2", "http", gateway, process.execPath, path.join(here, "page.mjs")],
  ...files.map((file) => [process.execPath, path.join(here, `${file}.mjs`), gateway]),
];

let passed = 0;
let failed = 0;
for (const [program, ...args] of runs) {
  console.log(`-- ${path.basename(args.findLast((arg) => arg.endsWith(".mjs")))}`);
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  let out = "";
  child.stdout.on("data", (data) => {
    out += data;
    process.stdout.write(String(data).replace(/^\d+ passed, \d+ failed\n/m, ""));
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  const count = /^(\d+) passed, (\d+) failed$/m.exec(out);
  passed += Number(count?.[1] ?? 0);
  failed += Number(count?.[2] ?? 0);
  if (!count || (code !== 0 && count[2] === "0")) {
    failed += 1;
    console.log(`FAIL ${program} ended with ${code} and ${count ? "no failed check" : "without a count"}`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
