/**
 * What became of an alert: by its order, its event or its customer.
 *
 * @typedef {{ cursor: string, recorded_at: string, type: string, source: string, id: string, subject: string | null,
 *   state: string | null }} Life
 * @typedef {{ event: Life | null, verdict: string, findings: string[] }} Alert
 * @typedef {{ asked: string, channel: string | null, alerts: Alert[],
 *   gateways: import("./connections.js").Gateway[] | null }} Trace
 */

import { gatewayCard } from "./connections.js";
import { element, make, moment } from "./elements.js";

const GUESSES = ["order_id", "event_id", "customer_id"];
const UNKNOWN = ["not-placed", "not-sent"]; // the next guess may find something
const GOOD = ["shown", "read", "delivered"];
const OVER = ["retracted", "replaced", "expired"];

export class TraceView {
  #ended = new AbortController();
  #search = 0; // the newest: an older one's answer is dropped

  /** @param {import("./sender.js").Sender} sender */
  constructor(sender) {
    this.sender = sender;
    const form = element("search");
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        const given = new FormData(/** @type {HTMLFormElement} */ (form));
        const kind = String(given.get("kind"));
        const source = kind === "event_id" ? String(given.get("source")).trim() : "";
        this.#find(String(given.get("asked")).trim(), kind, source);
      },
      { signal: this.#ended.signal },
    );
    const kind = /** @type {HTMLSelectElement} */ (element("kind"));
    const choose = () => (element("of-source").hidden = kind.value !== "event_id");
    kind.addEventListener("change", choose, { signal: this.#ended.signal });
    choose(); // a browser may have kept what was chosen before a reload
  }

  look() {}

  end() {
    this.#ended.abort();
    this.#search += 1;
  }

  /** @param {string} asked @param {string} kind  one of the guesses, or none @param {string} source */
  async #find(asked, kind, source) {
    if (!asked) return;
    const search = ++this.#search;
    element("trace-failure").textContent = "";
    element("trace-news").textContent = "Asking the database and the gateways …";
    try {
      const traces = await this.#ask(asked, kind ? [kind] : GUESSES, source);
      if (search !== this.#search) return;
      element("trace-news").textContent = "";
      element("found").replaceChildren(...traces.flatMap(cards));
    } catch (error) {
      if (search !== this.#search) return;
      element("trace-news").textContent = "";
      element("found").replaceChildren();
      element("trace-failure").textContent = error instanceof Error ? error.message : String(error);
    }
  }

  /**
   * What is found first; where nothing is, what each guess says.
   *
   * @param {string} asked @param {string[]} kinds @param {string} source  of the event; empty: our own orders'
   */
  async #ask(asked, kinds, source) {
    /** @type {Trace[]} */
    const traces = [];
    for (const kind of kinds) {
      const trace = /** @type {Trace} */ (await this.sender.trace({ [kind]: asked, ...(source && { source }) }));
      if (!trace.alerts.every(({ verdict }) => UNKNOWN.includes(verdict))) return [trace];
      traces.push(trace);
    }
    return traces;
  }
}

/** @param {Trace} trace */
function cards({ asked, alerts, gateways }) {
  const made = alerts.map((alert) => card(asked, alert));
  if (!gateways || !alerts.some(({ event }) => event)) return made;
  const places = make("section", "card", make("h3", "", "At the gateways now"));
  if (gateways.length === 0) places.append(make("p", "empty", "No gateway answers."));
  places.append(...gateways.map((gateway) => gatewayCard(gateway, "h4")));
  return [...made, places];
}

/** @param {string} asked @param {Alert} alert */
function card(asked, { event, verdict, findings }) {
  const words = make("span", "verdict", verdict.replaceAll("-", " "));
  words.dataset.kind = GOOD.includes(verdict) ? "good" : OVER.includes(verdict) ? "over" : "open";
  const name = event?.subject && !asked.includes(event.subject) ? `${asked}: ${event.subject}` : asked;
  const made = make("article", "card found", make("h2", "", `${name} `, words));
  made.dataset.verdict = verdict;
  const story = make("ol", "story");
  for (const finding of findings) story.append(make("li", "", finding));
  made.append(story);
  if (event) made.append(facts(event));
  return made;
}

/** @param {Life} life */
function facts({ cursor, recorded_at, type, source, id, state }) {
  const list = make("dl", "facts");
  const texts = { Event: id, Source: source, Type: type, Place: cursor, "In the customer's list": state };
  list.append(...Object.entries(texts).flatMap(([name, text]) => (text ? fact(name, text) : [])));
  if (recorded_at) list.append(...fact("Recorded", moment(recorded_at)));
  return list;
}

/** @param {string} name @param {string | Node} value */
function fact(name, value) {
  return [make("dt", "", name), make("dd", "", value)];
}
