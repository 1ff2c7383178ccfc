/** The back office page: open orders, and what became of the others; for support, alerts and connections. */

import { ConnectionsView } from "./connections.js";
import { element } from "./elements.js";
import { OpenOrders, RecentOrders } from "./orders.js";
import { Refused, Sender, developmentKey } from "./sender.js";
import { TraceView } from "./trace.js";

const DEVELOPMENT = document.documentElement.dataset.development === "true";
const KEY = "orderbell-office/key"; // sessionStorage: this tab only, gone with it
const RETRY_MS = 1_500;
const VIEWS = ["orders", "trace", "connections"];

/** @param {string} key */
function open(key) {
  const sender = new Sender(key);
  const recent = new RecentOrders(element("completed"), (id) => sender.cancel(id));
  const orders = new OpenOrders(element("open"), sender, (order) => {
    recent.update([order]);
    show();
  });
  const others = [new TraceView(sender), new ConnectionsView(sender)];
  const ended = new AbortController();
  let looked = new AbortController(); // at the page
  let more = false;

  /** Until the page is hidden or left: nobody looks at a hidden page. @param {AbortSignal} signal */
  async function listen(signal) {
    while (!signal.aborted) {
      try {
        let first = true;
        for await (const changes of sender.changes(signal)) {
          ({ more } = changes);
          orders.update(changes.orders, first ? null : changes.gone);
          recent.update(changes.orders);
          first = false;
          show();
          connection("ok", "Up to date");
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused && error.status === 401) return leave(error.message);
        if (error instanceof Refused && error.status === 403) return connection("lost", error.message);
      }
      if (signal.aborted) return;
      connection("lost", "No answer; trying again");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  function show() {
    const { count } = orders;
    element("count").textContent = String(count);
    element("open-empty").hidden = count > 0;
    element("completed-empty").hidden = recent.count > 0;
    element("more").hidden = !more;
    const news = count === 1 ? "1 open order" : `${count} open orders`;
    if (element("news").textContent !== news) element("news").textContent = news;
  }

  function choose() {
    const chosen = VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "orders";
    for (const view of VIEWS) element(`view-${view}`).hidden = view !== chosen;
    for (const link of element("views").querySelectorAll("a")) {
      if (link.hash === `#${chosen}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (chosen === "connections") others[1].look();
  }

  /** @param {string} failure */
  function leave(failure) {
    ended.abort();
    looked.abort();
    sessionStorage.removeItem(KEY);
    for (const id of ["open", "completed", "found", "gateways"]) element(id).replaceChildren();
    for (const view of [orders, ...others]) view.end();
    welcome(failure);
  }

  function look() {
    looked.abort();
    looked = new AbortController();
    if (!document.hidden) listen(looked.signal);
  }

  document.addEventListener("visibilitychange", look, { signal: ended.signal });
  addEventListener("hashchange", choose, { signal: ended.signal });
  element("forget-key").onclick = () => leave("");
  element("forget-key").hidden = DEVELOPMENT;
  element("welcome").hidden = true;
  for (const id of ["connection", "views"]) element(id).hidden = false;
  connection("lost", "Loading …");
  choose();
  look();
}

/** @param {string} failure */
function welcome(failure) {
  for (const id of [...VIEWS.map((view) => `view-${view}`), "views", "connection", "forget-key"]) {
    element(id).hidden = true;
  }
  element("welcome").hidden = false;
  element("welcome-failure").textContent = failure;
  element("key").focus();
}

/** @param {"ok" | "lost"} state @param {string} text */
function connection(state, text) {
  const shown = element("connection");
  shown.dataset.state = state;
  if (shown.textContent !== text) shown.textContent = text;
}

element("give-key").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ (element("key"));
  sessionStorage.setItem(KEY, input.value.trim());
  open(input.value.trim());
  input.value = "";
});

const kept = sessionStorage.getItem(KEY);
if (kept) open(kept);
else if (DEVELOPMENT) developmentKey().then(open, (error) => welcome(error.message));
else welcome("");
