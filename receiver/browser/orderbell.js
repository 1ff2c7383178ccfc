/**
 * Orderbell in the browser: the alerts of one customer, each shown once.
 *
 *     import { AlertSource, Toasts } from "/client/v1/orderbell.js";
 *
 *     const toasts = new Toasts();
 *     const alerts = new AlertSource("https://alerts.example/", { key: "alice", getToken });
 *     alerts.addEventListener("alert", ({ detail }) => toasts.show(detail));
 *
 * Names follow EventSource, WebSocket and MessageEvent. What an AlertSource promises:
 * - every event of the customer's channels reaches every tab once, in order and without holes ("message"), across
 *   lost connections, restarted gateways and sleep; where the server no longer has them all, "reset" says so; a
 *   tombstone, in the place of an event that could not be published, is passed over;
 * - one tab of this browser shows it ("alert"), one that a person can see; the other tabs and devices are notified
 *   ("shown"). An alert that was on no screen does not count as shown.
 *
 * Every tab has its own connection. One connection for all tabs would need a leader, and a leader's tab may be
 * throttled, frozen or killed without notice; a claim for each event (shown.js) has nobody to lose.
 *
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {import("./faults.js").Fault} Fault
 * @typedef {import("./environment.js").Environment} Environment
 *
 * @typedef {object} CloudEvent
 * @property {string} id
 * @property {string} source
 * @property {string} type
 * @property {string} [subject]
 * @property {string} [time]
 * @property {string} [channel]
 * @property {number} [epoch]
 * @property {number} [seq]
 * @property {string} [expirytime]  when it expires
 * @property {string} [popuntil]  after this time it no longer pops up
 * @property {string | boolean} [replaces]  the id of another event of its source; true: all earlier ones of its subject
 * @property {any} [data]
 *
 * @typedef {{ token: string } | { ticket: string }} Credential
 *
 * @typedef {object} Options
 * @property {string} [key]  whose alerts these are; separates what is remembered when customers share a browser
 * @property {(options: { signal: AbortSignal }) => Promise<Credential | null> | Credential | null} [getToken]  asked
 *   before each connection, and before a token runs out; without it, or when it gives null, a same-site cookie has to
 *   authenticate
 * @property {{ readonly state: string }} [desktop]  a DesktopAlerts that the listener of "alert" shows them with: while
 *   it is "granted", alerts are also offered to this tab while it is hidden
 * @property {readonly import("./ways.js").Way[]} [transports]  those to try, the best first; by default all of them
 * @property {number} [popUpFor]  milliseconds: alerts missed longer ago are only counted ("older"); 10 minutes
 * @property {AbortSignal} [signal]  closes it
 * @property {boolean} [debug]  logs to the console what happens, never a payload or a token
 * @property {(text: string, detail?: unknown) => void} [log]  the same, to your own log
 * @property {Partial<Environment>} [environment]  for tests; and `{ WebSocket }` for runtimes without one, such as Node 20
 *
 * @typedef {{ channel: string, first: Place, place: Place, cursor: string, by: "tab" | "device" }} ShownDetail
 * @typedef {{ channel: string, reason: string, cursor: string, refetch: string | null }} ResetDetail
 * @typedef {{ channel: string, cursor: string, reason: string }} RetractedDetail
 * @typedef {{ cursors: string[] }} ExpiredDetail
 * @typedef {{ upTo: string | null, alone: string[] }} ReadDetail
 * @typedef {{ count: number }} OlderDetail
 * @typedef {import("./alerts.js").Count} Count
 * @typedef {import("./alerts.js").AlertList} AlertList
 * @typedef {{ attempt: number, delay: number, code: number, reason: string }} ReconnectingDetail
 *
 * @typedef {object} AlertSourceEventMap
 * @property {Event} open
 * @property {MessageEvent<CloudEvent>} message
 * @property {import("./alert.js").AlertEvent} alert
 * @property {CustomEvent<ShownDetail>} shown
 * @property {CustomEvent<ResetDetail>} reset
 * @property {CustomEvent<RetractedDetail>} retracted
 * @property {CustomEvent<ExpiredDetail>} expired
 * @property {CustomEvent<ReadDetail>} read
 * @property {CustomEvent<Count>} unread
 * @property {CustomEvent<OlderDetail>} older
 * @property {CustomEvent<ReconnectingDetail>} reconnecting
 * @property {CustomEvent<Fault>} error
 * @property {CloseEvent} close
 */

export { AlertEvent } from "./alert.js";
export { isReplaced } from "./alerts.js";
export { DesktopAlerts } from "./desktop.js";
export { TitleBadge } from "./badge.js";
export { AlertSource } from "./source.js";
export { Toasts } from "./toast.js";
export { severityOf, textOf } from "./words.js";
