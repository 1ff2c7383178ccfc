/**
 * A composable for Vue: the alerts of a customer for as long as a component is mounted.
 *
 *     import { useAlerts } from "@orderbell/client/vue";
 *
 *     const { state } = useAlerts("https://alerts.example/", { key: customer, getToken });
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

import { onBeforeUnmount, onMounted, ref, shallowRef } from "vue";

import { AlertSource, Toasts } from "./orderbell.js";

/**
 * @param {string} url @param {UseOptions} [options]
 * @returns {{ state: import("vue").Ref<State>, source: import("vue").ShallowRef<AlertSource | null> }}
 */
export function useAlerts(url, options = {}) {
  const state = ref(/** @type {State} */ ("connecting"));
  const source = shallowRef(/** @type {AlertSource | null} */ (null));
  /** @type {Toasts | null} */
  let toasts = null;

  // Not in setup(): on a server there is nobody to show anything to.
  onMounted(() => {
    const alerts = new AlertSource(url, options);
    if (!options.onAlert) toasts = new Toasts();
    alerts.addEventListener("open", () => (state.value = "open"));
    alerts.addEventListener("reconnecting", () => (state.value = "connecting"));
    alerts.addEventListener("close", () => (state.value = "closed"));
    alerts.addEventListener("message", ({ data, lastEventId }) => options.onMessage?.(data, lastEventId));
    alerts.addEventListener("alert", (event) => {
      if (options.onAlert) options.onAlert(event);
      else toasts?.show(event.detail);
    });
    source.value = alerts;
  });
  onBeforeUnmount(() => {
    source.value?.close();
    toasts?.destroy();
  });

  return { state, source };
}
