// Takes the pictures of the page that the README and docs show: pictures.mjs GATEWAY DIRECTORY

import path from "node:path";
import { connected, enter, finish, member, online, open, person, rename, room, said, showPeople, told, write } from "./support.mjs";
import { Cluster, until } from "./nodes.mjs";

const [gateway, directory] = process.argv.slice(2);
const cluster = await Cluster.start(gateway, 3, { args: ["--lease-beat", "500ms", "--lease-expiry", "2s"] });
const picture = (page, name) => page.screenshot({ path: path.join(directory, name) });
const talk = async (...lines) => {
  for (const [page, text, id] of lines) {
    await write(page, text, id);
    await said(page, text, id).waitFor();
  }
};

try {
  const [anas, bos, cleos] = [await cluster.balancer(0, 1), await cluster.balancer(1, 2), await cluster.balancer(2, 1)];
  const ana = await person({ viewport: { width: 1180, height: 640 }, locale: "en-GB" });
  const bo = await person({ locale: "en-GB" });
  const vera = await person({ viewport: { width: 390, height: 720 }, colorScheme: "dark", locale: "ru-RU", hasTouch: true });
  await open(ana, anas);
  await rename(ana, "Ana");
  await enter(ana, "launch");
  await open(bo, `${bos}/#room=launch`);
  await rename(bo, "Bo");
  await vera.goto(`${cleos}/#room=launch`);
  await rename(vera, "Вера");
  await online(ana, 3);
  await showPeople(ana);
  await member(ana, "Вера").waitFor();
  await talk([ana, "Morning! I am on the first node. Where are you two?"], [bo, "On the second."],
    [vera, "Я на третьем, всё слышно."], [ana, "Same room, same order for all of us."]);
  await room(ana).locator(".online").click(); // closed: it opens by itself where there is room
  await enter(ana, "design");
  await enter(bo, "design");
  await talk([bo, "I have put the sketches up.", "design"], [ana, "Found them, looking now.", "design"]);
  await said(ana, "I have put the sketches up.", "design").waitFor();
  await cluster.kill(0);
  await connected(ana, "node-2");
  await told(ana, "Reconnected, now on node-2: nothing missed", "launch").waitFor();
  await online(ana, 3, "launch");
  await talk([bo, "Your node is gone. Did you miss anything?", "launch"], [ana, "Not a line.", "launch"]);
  await said(ana, "Not a line.", "launch").waitFor();
  await until("the ghost is gone", async () => (await room(ana, "launch").locator(".online").textContent()) === "3 online");
  await ana.mouse.move(0, 0);
  await picture(ana, "page.png");
  await said(vera, "Not a line.").waitFor();
  await picture(vera, "page-phone.png");
} finally {
  await cluster.stop();
  await finish();
}
