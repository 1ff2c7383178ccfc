import { AlertSource, DesktopAlerts, TitleBadge, Toasts, textOf, type AlertEvent } from "@orderbell/client";
import type { CloudEvent } from "@orderbell/client";
import { LANGUAGES } from "@orderbell/client/languages";

const messages = { "order.ready": "Bestellung {order} ist fertig", late: ({ minutes }: Record<string, unknown>) => String(minutes) };
const texts = { ...LANGUAGES.de, messages };
const toasts = new Toasts({ duration: 5_000, texts, summary: (count: number) => `${count} orders` });
const stop = new AbortController();
const alerts = new AlertSource("https://alerts.example/", {
  key: "alice",
  getToken: async ({ signal }: { signal: AbortSignal }) => ({ token: await (await fetch("/token", { signal })).text() }),
  signal: stop.signal,
  debug: true,
});

alerts.addEventListener("alert", (event) => {
  const alert: AlertEvent = event;
  const shown: Promise<boolean> = toasts.show(alert.detail, { title: "Order" });
  alert.shown(shown.then(() => undefined));
});
alerts.onalert = async ({ detail }) => void (await toasts.show(detail));
{
  using short = new AlertSource("https://alerts.example/");
  console.log(short.url);
}
alerts.addEventListener("message", ({ data, lastEventId }) => {
  const event: CloudEvent = data;
  const seq: number | undefined = event.seq;
  console.log(textOf(event), seq, lastEventId.length);
});
alerts.addEventListener("shown", ({ detail: { first, place, by } }) => {
  const device: "tab" | "device" = by;
  console.log(first.seq + place.seq, device);
});
alerts.addEventListener("error", ({ detail: { kind, message } }) => console.error(kind.length, message.length));
alerts.addEventListener("close", ({ code, reason }) => console.log(code.toFixed(), reason.trim()));
alerts.onmessage = ({ data }) => console.log(data.id.length, textOf(data, messages));
alerts.onalert = (event) => event.into(toasts);
alerts.onalert = null;
alerts.addEventListener("menu.changed", (event) => console.log(event.type));
const open: boolean = alerts.readyState === AlertSource.OPEN;
const desktop = new DesktopAlerts();
const badge = new TitleBadge();
badge.count += 1;
console.log(open, desktop.state, alerts.lastEventId, alerts.channels.length);
alerts.reconnect();
alerts.close();

// @ts-expect-error  a key is a text
new AlertSource("/", { key: 5 });
// @ts-expect-error  what an alert has not
alerts.addEventListener("alert", ({ nothing }) => nothing);
// @ts-expect-error  what a message has not
alerts.onmessage = ({ detail }) => detail;
// @ts-expect-error  no such severity
new Toasts({ texts: { severities: { loud: "!" } } });
