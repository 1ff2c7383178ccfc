/**
 * Who is connected, by gateway.
 *
 * @typedef {{ customer: string, transport: string, since: string, live: boolean, waiting_bytes: number,
 *   spoke_at: string | null }} Connection
 * @typedef {{ transport: string, since: string, ended_at: string, code: string, reason: string }} Ending
 * @typedef {{ gateway: string, started_at: string, redis: boolean, not_ready: string[],
 *   connections: Record<string, number>, listening: Connection[], listening_count: number, place: string | null,
 *   ended: Ending[] }} Gateway
 */

import { element, make, moment } from "./elements.js";

export class ConnectionsView {
  #ended = new AbortController();
  #look = 0; // the newest: an older one's answer is dropped

  /** @param {import("./sender.js").Sender} sender */
  constructor(sender) {
    this.sender = sender;
    element("who").addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        this.look();
      },
      { signal: this.#ended.signal },
    );
  }

  end() {
    this.#ended.abort();
    this.#look += 1;
  }

  async look() {
    const look = ++this.#look;
    const customer = /** @type {HTMLInputElement} */ (element("customer")).value.trim();
    element("connections-failure").textContent = "";
    element("connections-news").textContent = "Asking the gateways …";
    try {
      /** @type {{ connections: number, gateways: Gateway[] | null }} */
      const { connections, gateways } = await this.sender.connections(customer);
      if (look !== this.#look) return;
      element("connected").textContent = connections.toLocaleString();
      element("connections-news").textContent = inWords(connections, gateways, customer);
      element("gateways").replaceChildren(...(gateways ?? []).map((gateway) => gatewayCard(gateway, "h2")));
    } catch (error) {
      if (look !== this.#look) return;
      element("connected").textContent = element("connections-news").textContent = "";
      element("gateways").replaceChildren();
      element("connections-failure").textContent = error instanceof Error ? error.message : String(error);
    }
  }
}

/** @param {number} connections @param {Gateway[] | null} gateways @param {string} customer */
function inWords(connections, gateways, customer) {
  if (!gateways) return "The gateways can't be asked: this sender does not reach Redis.";
  if (gateways.length === 0) return "No gateway answers: none is running, or none hears Redis.";
  const whose = customer ? ` of ${customer}` : "";
  const count = connections === 1 ? "1 connection" : `${connections.toLocaleString()} connections`;
  return `${count}${whose} at ${gateways.length === 1 ? "1 gateway" : `${gateways.length} gateways`}.`;
}

/** @param {Gateway} gateway @param {"h2" | "h4"} heading  the level where it stands */
export function gatewayCard(gateway, heading) {
  const { listening, listening_count, ended, not_ready } = gateway;
  const made = make("article", heading === "h2" ? "card gateway" : "gateway", make(heading, "", gateway.gateway));
  const counts = Object.entries(gateway.connections).map(([name, count]) => `${count.toLocaleString()} ${name}`);
  const state = gateway.redis ? "hears Redis" : "pulls from the sender";
  made.append(make("p", "about", `${counts.join(", ") || "no connections"} · ${state} · up since `, moment(gateway.started_at)));
  if (gateway.place) made.append(make("p", "about", `has handed over everything up to ${gateway.place}`));
  for (const why of not_ready) made.append(make("p", "failure", `Not ready: ${why}`));
  if (listening.length > 0) made.append(table(listening));
  const more = listening_count - listening.length;
  if (more > 0) made.append(make("p", "hint", `and ${more.toLocaleString()} more`));
  for (const one of ended.toReversed()) {
    const why = `${one.transport}, ${one.code} ${one.reason}`.trim();
    made.append(make("p", "about", "ended ", moment(one.ended_at), `: ${why}`));
  }
  return made;
}

/** @param {Connection[]} connections */
function table(connections) {
  const head = make("tr", "");
  for (const name of ["Customer", "Transport", "Since", "Last message", "State"]) {
    const cell = make("th", "", name);
    cell.setAttribute("scope", "col");
    head.append(cell);
  }
  const body = make("tbody", "");
  for (const one of connections) {
    const waits = one.waiting_bytes ? `${one.waiting_bytes.toLocaleString()} bytes wait` : "";
    const state = [one.live ? "live" : "catching up", waits].filter(Boolean).join(", ");
    const cells = [one.customer, one.transport, moment(one.since), one.spoke_at ? moment(one.spoke_at) : "never", state];
    body.append(make("tr", "", ...cells.map((cell) => make("td", "", cell))));
  }
  const made = make("table", "", make("thead", "", head), body);
  // Wider than a phone: it scrolls in a box that the keyboard reaches.
  const box = make("div", "wide", made);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Connections");
  return box;
}
