// Two people on two nodes, in front of real Redis. One node is killed while both type and send.
//
//   node killed.mjs target/debug/gateway

import { check, connected, finish, holds, online, open, people, person, rename, room, said, same, showPeople, texts, told,
  unforeseen, write } from "./support.mjs";
import { Cluster, until } from "./nodes.mjs";

const EACH = 40; // messages of each of the two, of which the node dies in the middle

const cluster = await Cluster.start(process.argv[2], 3, { args: ["--lease-beat", "500ms", "--lease-expiry", "8s"] });
try {
  // Ana's balancer leads to the first node, then to the third; Bo's to the second.
  const [anas, bos] = [await cluster.balancer(0, 2), await cluster.balancer(1, 2)];
  const [ana, bo] = [await person(), await person()];

  await check("two people meet, each on a node of their own", async () => {
    await open(ana, anas);
    await rename(ana, "Ana");
    await ana.getByRole("button", { name: "New room" }).click();
    await room(ana).waitFor();
    await open(bo, bos + new URL(ana.url()).hash);
    await rename(bo, "Bo");
    await Promise.all([connected(ana, "node-1"), connected(bo, "node-2")]);
    for (const page of [ana, bo]) {
      await online(page, 2);
      await showPeople(page);
    }
    await until("both lists are whole", async () => {
      const lists = await Promise.all([ana, bo].map(async (page) => (await people(page)).sort().join()));
      return lists.join(" ") === "Ana (you),Bo Ana,Bo (you)";
    });
  });

  const wanted = ["Ana", "Bo"].flatMap((name) => Array.from({ length: EACH }, (_, number) => `${name} says ${number}`));
  const all = (page) => until("everything is there", async () => (await texts(page)).length >= wanted.length);

  await check("a node is killed while both type and send", async () => {
    let dying;
    const typing = [[ana, "Ana"], [bo, "Bo"]].map(async ([page, name]) => {
      for (let number = 0; number < EACH; number += 1) {
        await write(page, `${name} says ${number}`);
        if (page !== ana || number !== EACH / 2) continue;
        await said(bo, `Ana says ${EACH / 4}`).waitFor();
        dying = cluster.kill(0); // and she types on
      }
    });
    await Promise.all(typing);
    await dying;
    await Promise.all([all(ana), all(bo)]);
  });

  await check("nothing is lost, nothing is there twice, and the order is one", async () => {
    const [left, right] = await Promise.all([texts(ana), texts(bo)]);
    same(left, right, "two orders");
    same([...left].sort(), [...wanted].sort(), "not what was written");
    for (const name of ["Ana", "Bo"]) {
      same(left.filter((text) => text.startsWith(name)), wanted.filter((text) => text.startsWith(name)), `${name}'s own order`);
    }
    for (const page of [ana, bo]) same(await room(page).locator(".pending .message").count(), 0, "something still waits");
  });

  await check("the page says which node serves it now, and that nothing was missed", async () => {
    await connected(ana, "node-3");
    await told(ana, "Reconnected, now on node-3: nothing missed").waitFor();
    const after = await room(ana).locator(".lines").evaluate((lines) => {
      const all = [...lines.children];
      return all.slice(all.findIndex((line) => line.textContent.startsWith("Reconnected"))).filter((line) => line.matches(".mine")).length;
    });
    holds(after > 0 && after < EACH, `${after} of Ana's ${EACH} messages stand behind the reconnect`);
    await connected(bo, "node-2");
    same(await room(bo).locator(".system").getByText("nothing missed").count(), 0, "Bo was never away");
  });

  await check("the dead node's ghost is gone with its lease", async () => {
    for (const page of [ana, bo]) {
      await until("the ghost is gone", async () => (await people(page)).length === 2);
      await online(page, 2);
    }
    same((await people(ana)).sort(), ["Ana (you)", "Bo"]);
    same((await people(bo)).sort(), ["Ana", "Bo (you)"]);
    for (const words of ["Ana came in", "Ana left"]) same(await told(bo, words).count(), 0, "she was here all the time");
  });

  await check("a message written while nothing can be reached is sent when something can", async () => {
    await cluster.kill(2);
    await ana.locator('#status[data-state="waiting"]').waitFor();
    await write(ana, "Into the void");
    await room(ana).locator(".pending .message").getByText("Into the void").waitFor();
    same(await said(ana, "Into the void").count(), 0);
    // The first node comes back, as a new process under its old name and port.
    await cluster.revive(0);
    await said(bo, "Into the void").waitFor();
    await said(ana, "Into the void").waitFor();
    await room(ana).locator(".pending .message").waitFor({ state: "detached" });
    await connected(ana, "node-1");
    same(...(await Promise.all([texts(ana), texts(bo)])));
  });

  await check("no error in any console", async () => {
    const complaints = [ana, bo].flatMap(unforeseen);
    holds(complaints.length === 0, complaints.join("\n"));
  });
} finally {
  if (process.exitCode) console.log(cluster.logs());
  await cluster.stop();
  await finish();
}
