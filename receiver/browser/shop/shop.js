/** The shop page: an application's page with Orderbell in it, small enough to be read as an example. */

import { AlertSource, DesktopAlerts, TitleBadge, Toasts, textOf } from "../orderbell.js";
import { Alerts } from "./alerts.js";
import { element } from "../elements.js";
import { showMenu } from "./menu.js";
import { Orders } from "./orders.js";
import { DEVELOPMENT, keepToken, resume, signIn, signOut } from "./session.js";

const toasts = new Toasts({ summary: (count) => `${count} orders are complete` });
const desktop = new DesktopAlerts();
const badge = new TitleBadge();

/** @param {import("./session.js").Session} session */
function open({ customer, getToken }) {
  const orders = new Orders();
  const alerts = new Alerts(customer);
  const source = new AlertSource(gateway(), { key: customer, getToken, desktop });

  source.addEventListener("open", () => {
    connection("open", `Connected to ${new URL(source.url).host}`);
    source.list({ limit: 50 }).then((list) => alerts.take(list.alerts), showFailure);
  });
  source.addEventListener("retracted", ({ detail: { cursor } }) => {
    alerts.remove([cursor]);
    orders.load().catch(showFailure); // its order may be cancelled
  });
  source.addEventListener("expired", ({ detail: { cursors } }) => alerts.remove(cursors));
  source.addEventListener("read", ({ detail: { upTo, alone } }) => alerts.read(upTo, alone));
  source.addEventListener("unread", ({ detail: { unread } }) => showUnread(unread));
  source.addEventListener("older", ({ detail: { count } }) => toasts.show(count === 1 ? "And 1 older alert" : `And ${count} older alerts`));
  element("mark-read").onclick = () => source.markRead().catch(showFailure);
  source.addEventListener("message", ({ data: event, lastEventId }) => {
    alerts.add(lastEventId, event);
    if (event.type === "order.completed") orders.complete(event);
  });
  source.addEventListener("alert", ({ detail: event }) => {
    const { item } = Object(event.data);
    const other = event.type === "order.completed" ? "Your order is complete" : "News";
    const title = typeof item === "string" && item ? item : other;
    const cursor = `${event.channel}=${event.epoch}.${event.seq}`;
    const here = (/** @type {boolean} */ seen) => seen && alerts.shown(cursor, "here");
    toasts.show(event, { title }).then(here);
    desktop.show(title, { body: textOf(event), tag: event.id, icon: "static/bell.svg" }).then(here);
    if (document.hidden) badge.count += 1;
  });
  source.addEventListener("shown", ({ detail: { cursor, first, by } }) => alerts.shown(cursor, by, first));
  source.addEventListener("reset", () => orders.load().catch(showFailure));
  source.addEventListener("reconnecting", ({ detail: { attempt } }) => {
    connection("connecting", attempt > 2 ? "No connection; still trying" : "Reconnecting …");
  });
  source.addEventListener("close", ({ code, reason }) => {
    // Where another customer has signed in, in another tab, the cookie is theirs.
    if (code !== 1000) leave(`The gateway ended the connection: ${reason || code}.`, code !== 4403);
  });

  // Orders may have been placed in another tab meanwhile.
  const looking = new AbortController();
  document.addEventListener("visibilitychange", () => !document.hidden && orders.load().catch(showFailure), looking);

  function leave(failure = "", signsOut = true) {
    looking.abort();
    source.close();
    toasts.clear();
    badge.count = 0;
    orders.clear();
    alerts.forget();
    showUnread(0);
    (signsOut ? signOut() : Promise.resolve()).then(() => welcome(failure), showFailure);
  }

  element("customer").textContent = customer;
  element("sign-out").onclick = () => leave();
  element("welcome").hidden = true;
  for (const id of ["shop", "account", "connection"]) element(id).hidden = false;
  connection("connecting", "Connecting …");
  showMenu((order) => orders.add(order));
  showHow(customer);
  orders.load().catch(showFailure);
}

/** @param {number} count */
function showUnread(count) {
  element("unread").textContent = count > 0 ? `${count} unread` : "";
  element("mark-read").hidden = count === 0;
}

/** @param {string} failure */
function welcome(failure = "") {
  for (const id of ["shop", "account", "connection"]) element(id).hidden = true;
  element("welcome").hidden = false;
  element("welcome-failure").textContent = failure;
  element(DEVELOPMENT ? "name" : "token").focus();
}

/** @param {unknown} error */
function showFailure(error) {
  const text = error instanceof Error ? error.message : String(error);
  element(element("welcome").hidden ? "menu-failure" : "welcome-failure").textContent = text;
}

/** @param {"open" | "connecting"} state @param {string} text */
function connection(state, text) {
  const shown = element("connection");
  shown.dataset.state = state;
  if (shown.textContent !== text) shown.textContent = text;
}

/**
 * Which gateway to connect to: the one that served this page. In development mode `?gateway=8092` names another
 * by its port, to see that any will do; the tabs then still share one origin, as they do behind a balancer.
 */
function gateway() {
  const port = new URLSearchParams(location.search).get("gateway");
  return DEVELOPMENT && port && /^\d{1,5}$/.test(port) ? `${location.protocol}//${location.hostname}:${port}/` : "./";
}

/** @param {string} customer */
function showHow(customer) {
  const sender = `${location.protocol}//${location.hostname}:8090`;
  const call = (/** @type {string} */ path) =>
    `curl ${sender}${path} \\\n  -H "Authorization: Bearer $ORDERBELL_API_KEY" -H "Content-Type: application/json" \\\n  -d `;
  element("how").textContent =
    `${call("/orders")}'{"order_id":"1042","customer_id":"${customer}"}'\n\n${call("/orders/1042/complete")}'{}'`;
}

/** The links of the tour, where `make run` has its ports; elsewhere nobody could tell where they lead. */
function showTour() {
  const other = { 8091: "8092", 8092: "8091" }[location.port];
  if (!DEVELOPMENT || !other) return;
  document.documentElement.dataset.defaultPorts = "";
  const connected = new URLSearchParams(location.search).has("gateway");
  element("other-gateway").setAttribute("href", connected ? "./" : `./?gateway=${other}`);
  element("back-office").setAttribute("href", `http://${location.hostname}:8090/`);
}

function showDesktop() {
  const { state } = desktop;
  const hints = {
    unsupported: "",
    insecure: "Desktop alerts need HTTPS, or localhost.",
    default: "For when you look at another window.",
    granted: "Desktop alerts are on, for when you look at another window.",
    denied: "Desktop alerts are blocked; the site settings beside the address allow them again.",
  };
  element("desktop").hidden = state === "unsupported";
  element("desktop-button").hidden = state !== "default";
  element("desktop-hint").textContent = hints[state];
}

/** @param {() => Promise<import("./session.js").Session>} enter */
async function tryToEnter(enter) {
  element("welcome-failure").textContent = "";
  try {
    open(await enter());
    element("main").focus({ preventScroll: true }); // the top says whether there is a connection
  } catch (error) {
    showFailure(error);
  }
}

element("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  tryToEnter(() => signIn(/** @type {HTMLInputElement} */ (element("name")).value));
});
for (const button of document.querySelectorAll("[data-name]")) {
  button.addEventListener("click", () => tryToEnter(() => signIn(button.textContent ?? "")));
}
element("paste-token").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ (element("token"));
  tryToEnter(async () => keepToken(input.value.trim()));
  input.value = "";
});
element("desktop-button").addEventListener("click", () => desktop.request());
desktop.addEventListener("change", showDesktop);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) badge.count = 0;
});

showDesktop();
showTour();
resume().then(
  (session) => (session ? open(session) : welcome()),
  (error) => welcome(error instanceof Error ? error.message : String(error)),
);
