/** The back office page: open orders, and a button that completes each. */

import { CompletedOrders, OpenOrders } from "./orders.js";
import { Refused, Sender, developmentKey } from "./sender.js";

const DEVELOPMENT = document.documentElement.dataset.development === "true";
const KEY = "orderbell-office/key"; // sessionStorage: this tab only, gone with it
const REFRESH_MS = 1_500;

/** @param {string} id @returns {HTMLElement} */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @param {string} key */
function open(key) {
  const sender = new Sender(key);
  const completed = new CompletedOrders(element("completed"), (id) => sender.cancel(id));
  const orders = new OpenOrders(
    element("open"),
    (id, how) => sender.complete(id, how),
    (order) => {
      completed.add([order]);
      show(false);
    },
  );
  /** @type {number | undefined} */
  let timer;
  let ended = false;

  async function refresh() {
    clearTimeout(timer);
    try {
      const [{ orders: listed, more }, recent] = await Promise.all([sender.openOrders(), sender.completedOrders()]);
      if (ended) return;
      orders.update(listed);
      completed.add(recent);
      show(more);
      connection("ok", "Up to date");
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return leave(error.message);
      connection("lost", "No answer; trying again");
    }
    // Nobody looks at a hidden page; it refreshes when it is seen again.
    if (!document.hidden && !ended) timer = setTimeout(refresh, REFRESH_MS);
  }

  /** @param {boolean} more */
  function show(more) {
    const { count } = orders;
    element("office").hidden = false;
    element("count").textContent = String(count);
    element("open-empty").hidden = count > 0;
    element("completed-empty").hidden = completed.count > 0;
    element("more").hidden = !more;
    const news = count === 1 ? "1 open order" : `${count} open orders`;
    if (element("news").textContent !== news) element("news").textContent = news;
  }

  /** @param {string} failure */
  function leave(failure) {
    ended = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
    sessionStorage.removeItem(KEY);
    element("open").replaceChildren();
    element("completed").replaceChildren();
    welcome(failure);
  }

  function look() {
    if (!document.hidden) refresh();
  }

  document.addEventListener("visibilitychange", look);
  element("forget-key").onclick = () => leave("");
  element("forget-key").hidden = DEVELOPMENT;
  element("welcome").hidden = true;
  element("connection").hidden = false;
  connection("lost", "Loading …");
  refresh();
}

/** @param {string} failure */
function welcome(failure) {
  for (const id of ["office", "connection", "forget-key"]) element(id).hidden = true;
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
