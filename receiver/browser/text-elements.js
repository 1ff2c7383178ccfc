/** Elements that hold text, never markup. */

/** @param {string} tag @param {string} name @param {string} [text] */
export function make(tag, name, text = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}

/** A text of others: in its own language and direction. @param {string} tag @param {string} name @param {string} text @param {string} lang */
export function words(tag, name, text, lang) {
  const element = make(tag, name, text);
  element.dir = "auto";
  if (lang) element.lang = lang;
  return element;
}
