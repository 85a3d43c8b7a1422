// Ports for servers of tests, here and of the page's, that are started, stopped and started again.

import { once } from "node:events";
import net from "node:net";

// Below the range from which the kernel gives ports away: nobody takes it while its server starts, or is away for a moment.
export async function freePort() {
  for (;;) {
    const server = net.createServer().listen(12_000 + Math.floor(Math.random() * 20_000), "127.0.0.1");
    try {
      await once(server, "listening");
    } catch {
      continue; // taken
    }
    const { port } = server.address();
    server.close();
    await once(server, "close");
    return port;
  }
}
