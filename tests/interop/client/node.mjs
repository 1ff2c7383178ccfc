// Node, from 20 on: receives, and shows nothing. Prints each message's seq; ends after as many as it is given.
import { AlertSource } from "@orderbell/client";
import WebSocket from "ws";

const [url, token, count] = process.argv.slice(2);
let had = 0;
const alerts = new AlertSource(url, { key: "node", getToken: () => ({ token }), environment: { WebSocket } });
alerts.addEventListener("open", () => console.log("open"), { once: true });
alerts.addEventListener("message", ({ data }) => {
  console.log(data.seq);
  had += 1;
  if (had === Number(count)) alerts.close();
  else alerts.reconnect(); // the old socket goes on calling listeners, because `ws` ignores signals
});
alerts.addEventListener("close", ({ code }) => console.log("closed", code));
