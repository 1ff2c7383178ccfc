/**
 * node page.cjs PAGE URL: what a page of Spring's guide or article does, without a browser. Each line of standard input
 * is sent; each message is printed as a line of JSON.
 *
 * PAGE: guide (@stomp/stompjs 7), guide-5 (5.x), older-guide and article (stomp-websocket 2.3.3 over SockJS).
 */
"use strict";

const { createInterface } = require("node:readline");
const { createRequire } = require("node:module");
const load = createRequire(`${__dirname}/../stomp/package.json`);

const [page, url] = process.argv.slice(2);
const say = (event, text = "") => console.log(JSON.stringify({ event, text }));
let send;

if (page === "guide" || page === "guide-5") {
  globalThis.WebSocket = load("ws").WebSocket;
  const { Client } = load(page === "guide" ? "@stomp/stompjs" : "stompjs-5");
  const client = new Client({ brokerURL: url });
  client.onConnect = () => {
    client.subscribe("/topic/greetings", (greeting) => say("message", JSON.parse(greeting.body).content));
    say("connected");
  };
  client.onStompError = (frame) => say("error", frame.headers.message);
  client.activate();
  send = (name) => client.publish({ destination: "/app/hello", body: JSON.stringify({ name }) });
} else {
  const { Stomp } = load("stompjs/lib/stomp.js");
  Stomp.setInterval = (ms, action) => setInterval(action, ms);
  Stomp.clearInterval = (timer) => clearInterval(timer);
  const client = Stomp.over(new (load("sockjs-client"))(url));
  client.debug = () => {};
  const guide = page === "older-guide";
  client.connect({}, () => {
    client.subscribe(guide ? "/topic/greetings" : "/topic/messages", (message) =>
      say("message", guide ? JSON.parse(message.body).content : message.body));
    say("connected");
  }, (error) => say("error", String(error.body ?? error)));
  send = (name) => client.send("/app/hello", {}, guide ? JSON.stringify({ name }) : name);
}
createInterface({ input: process.stdin }).on("line", (line) => send(line)).on("close", () => process.exit(0));
