/** What this shop sells, and how it is ordered. */

import { element, make, picture } from "../elements.js";
import { json, post } from "./session.js";

/** @type {readonly { item: string, price: string, picture: string }[]} */
const PRODUCTS = [
  { item: "Flat white", price: "3.40", picture: "coffee" },
  { item: "Croissant", price: "2.60", picture: "croissant" },
  { item: "Tomato soup", price: "6.50", picture: "soup" },
  { item: "Sandwich", price: "7.20", picture: "sandwich" },
  { item: "Lemon cake", price: "4.10", picture: "cake" },
  { item: "Iced tea", price: "3.80", picture: "tea" },
];
const TRIES = 3; // for an order number that is free, and for a lost answer

/** The picture of a product, or of the bell where it is none of ours. @param {unknown} item */
export function pictureOf(item) {
  const product = PRODUCTS.find((candidate) => candidate.item === item);
  return product ? `static/shop/${product.picture}.svg` : "static/bell.svg";
}

/** @param {string} price */
function euro(price) {
  return Number(price).toLocaleString([], { style: "currency", currency: "EUR" });
}

/** @param {(order: import("./orders.js").Order) => void} placed */
export function showMenu(placed) {
  element("menu").replaceChildren(
    ...PRODUCTS.map((product) => {
      const button = make("button", "", "Order");
      button.setAttribute("type", "button");
      button.setAttribute("aria-label", `Order: ${product.item}`);
      button.addEventListener("click", () => order(product, /** @type {HTMLButtonElement} */ (button), placed));
      return make(
        "li",
        "product",
        picture(pictureOf(product.item), 64),
        make("strong", "", product.item),
        make("span", "price", euro(product.price)),
        button,
      );
    }),
  );
}

/**
 * @param {{ item: string, price: string }} product
 * @param {HTMLButtonElement} button
 * @param {(order: import("./orders.js").Order) => void} placed
 */
async function order({ item, price }, button, placed) {
  const failure = element("menu-failure");
  failure.textContent = "";
  button.disabled = true;
  try {
    placed(await place({ item, price, currency: "EUR" }));
  } catch (error) {
    failure.textContent = `The order was not placed. ${error instanceof Error ? error.message : error}`;
  } finally {
    const hadFocus = document.activeElement === document.body; // disabling takes the focus away
    button.disabled = false;
    if (hadFocus) button.focus();
  }
}

/** @param {object} data */
async function place(data) {
  let number = orderNumber();
  for (let left = TRIES; ; left -= 1) {
    try {
      // The same number again is the same order: trying again after a lost answer orders nothing twice.
      const answer = await post("development/orders", { order_id: number, data });
      if (answer.status !== 409 || left === 0) return await json(answer);
      number = orderNumber(); // taken by somebody else's
    } catch (error) {
      if (!(error instanceof TypeError) || left === 0) throw error;
    }
  }
}

function orderNumber() {
  return String(100_000 + Math.floor(Math.random() * 900_000));
}
