/**
 * A hook for React: the alerts of a customer for as long as a component is mounted.
 *
 *     import { useAlerts } from "@orderbell/client/react";
 *
 *     const { state } = useAlerts("https://alerts.example/", { key: customer, getToken, onAlert });
 *
 * StrictMode mounts twice: the first source, and the toasts that it made, are gone before the second comes.
 *
 * @typedef {import("./orderbell.js").AlertEvent} AlertEvent
 * @typedef {import("./orderbell.js").CloudEvent} CloudEvent
 *
 * @typedef {object} Listeners
 * @property {(event: AlertEvent) => unknown} [onAlert]  shows it; without one, a toast does
 * @property {(event: CloudEvent, cursor: string) => unknown} [onMessage]
 *
 * @typedef {import("./orderbell.js").Options & Listeners} UseOptions
 * @typedef {"connecting" | "open" | "closed"} State
 */

import { useEffect, useRef, useState } from "react";

import { AlertSource, Toasts } from "./orderbell.js";

/**
 * A change of the URL or of the key reconnects; listeners and `getToken` may change with every rendering.
 *
 * @param {string} url @param {UseOptions} [options]
 * @returns {{ state: State, source: AlertSource | null }}
 */
export function useAlerts(url, options = {}) {
  const latest = useRef(options);
  latest.current = options;
  const [state, setState] = useState(/** @returns {State} */ () => "connecting");
  const [source, setSource] = useState(/** @returns {AlertSource | null} */ () => null);
  const { key } = options;

  useEffect(() => {
    setState("connecting"); // what was here before has closed
    const { getToken, onAlert } = latest.current;
    const alerts = new AlertSource(url, {
      ...latest.current,
      getToken: getToken && ((given) => latest.current.getToken?.(given) ?? null),
    });
    const toasts = onAlert ? null : new Toasts();
    alerts.addEventListener("open", () => setState("open"));
    alerts.addEventListener("reconnecting", () => setState("connecting"));
    alerts.addEventListener("close", () => setState("closed"));
    alerts.addEventListener("message", ({ data, lastEventId }) => latest.current.onMessage?.(data, lastEventId));
    alerts.addEventListener("alert", (event) => {
      if (latest.current.onAlert) latest.current.onAlert(event);
      else toasts?.show(event.detail);
    });
    setSource(alerts);
    return () => {
      alerts.close();
      toasts?.destroy();
    };
  }, [url, key]);

  return { state, source };
}
