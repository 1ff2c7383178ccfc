// The recommended rules, and what they leave to taste. Types are tsc's affair.
import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["**/.venv/", "receiver/browser/bundle/"] },
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-var": "error",
      "prefer-const": "error",
      "no-implied-eval": "error",
      "no-else-return": "error",
      "no-self-compare": "error",
      "no-shadow": "error",
      "object-shorthand": "error",
      "no-unused-expressions": "error",
      "no-throw-literal": "error",
      "no-use-before-define": ["error", { functions: false, classes: false }],
    },
  },
  { files: ["receiver/**", "sender/**", "shared/**", "tests/browser/world.js"], languageOptions: { globals: globals.browser } },
  { files: ["bench/**", "tests/interop/**", "tests/browser/lua.js", "tests/browser/bundle.js"], languageOptions: { globals: globals.node } },
];
