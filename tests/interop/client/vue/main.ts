import { createApp, defineComponent, h, ref } from "vue";

import { useAlerts } from "@orderbell/client/vue";
import "@orderbell/client/toast.css";

const given = new URLSearchParams(location.hash.slice(1));

const App = defineComponent({
  setup() {
    const had = ref<number[]>([]);
    const { state } = useAlerts(given.get("url") ?? "", {
      key: given.get("customer") ?? "",
      getToken: () => ({ token: given.get("token") ?? "" }),
      onMessage: ({ seq }) => had.value.push(seq ?? 0),
    });
    return () => h("p", { "data-state": state.value }, had.value.join());
  },
});

const Switch = defineComponent({
  setup() {
    const mounted = ref(true);
    return () => [h("button", { onClick: () => (mounted.value = false) }, "Leave"), mounted.value ? h(App) : null];
  },
});

createApp(Switch).mount("#app");
