/**
 * node listen.cjs CLIENT URL TOKEN DESTINATION...: an unmodified STOMP client that prints what it gets, a line of
 * JSON each, until its standard input ends.
 *
 * CLIENT: stompjs-7, stompjs-5 (WebSocket), stomp-websocket (WebSocket), sockjs (stomp-websocket 2.3.3 over SockJS,
 * as the article's page has it), sockjs-<transport> (the same with that transport of SockJS's alone).
 */
"use strict";

const [client, url, token, ...destinations] = process.argv.slice(2);
const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));
const heard = (message) =>
  say("message", { body: message.body, headers: { ...message.headers }, destination: message.headers.destination });

if (client === "stompjs-7" || client === "stompjs-5") {
  globalThis.WebSocket = require("ws").WebSocket;
  const { Client } = require(client === "stompjs-7" ? "@stomp/stompjs" : "stompjs-5");
  const stomp = new Client({
    brokerURL: url,
    connectHeaders: token ? { Authorization: `Bearer ${token}` } : {},
    reconnectDelay: 200,
    onConnect: (frame) => {
      say("connected", { headers: { ...frame.headers } });
      for (const destination of destinations) {
        stomp.subscribe(destination, (message) => {
          heard(message);
          message.ack();
        }, { ack: "client" });
      }
    },
    onStompError: (frame) => say("error", { headers: { ...frame.headers }, body: frame.body }),
    onWebSocketClose: ({ code }) => say("closed", { code }),
  });
  stomp.activate();
  process.stdin.on("end", async () => {
    await stomp.deactivate(); // sends DISCONNECT and waits for its receipt
    process.exit(0);
  });
} else {
  const { Stomp } = require("stompjs/lib/stomp.js");
  Stomp.setInterval = (ms, action) => setInterval(action, ms);
  Stomp.clearInterval = (timer) => clearInterval(timer);
  const SockJS = require("sockjs-client");
  const { WebSocket } = require("ws");
  const open = () => {
    const overSockJs = client.startsWith("sockjs");
    const transports = client === "sockjs" ? undefined : [client.slice("sockjs-".length)];
    const socket = overSockJs ? new SockJS(url, null, { transports }) : new WebSocket(url, ["v10.stomp", "v11.stomp"]);
    if (overSockJs) {
      socket.addEventListener("close", ({ code, reason }) => say("closed", { code, reason }));
    } else {
      socket.on("error", () => {}); // Node's, which browsers don't have; "close" follows
      // The library was written for browsers, where `onmessage` gets text.
      const { set } = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
      Object.defineProperty(socket, "onmessage", {
        set: (listener) => {
          set.call(socket, ({ data }) => listener({ data: String(data) }));
        },
      });
    }
    const stomp = Stomp.over(socket);
    stomp.debug = () => {};
    stomp.connect(
      token ? { Authorization: `Bearer ${token}` } : {},
      (frame) => {
        say("connected", { headers: frame.headers });
        for (const destination of destinations) stomp.subscribe(destination, heard);
        process.stdin.once("end", () => stomp.disconnect(() => process.exit(0)));
      },
      (error) => {
        say("error", { body: String(error.body ?? error) });
        setTimeout(open, 200);
      },
    );
    globalThis.send = (destination, body) => stomp.send(destination, {}, body);
  };
  open();
}
process.stdin.resume();
