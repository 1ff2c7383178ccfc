/** What the page's views share. Texts of customers and callers stay texts. */

/** @param {string} id @returns {HTMLElement} */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @param {string} tag @param {string} name @param {...(string | Node)} children  text stays text */
export function make(tag, name, ...children) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...children);
  return made;
}

/** @param {string} text  RFC 3339 @returns {HTMLElement} */
export function moment(text) {
  const date = new Date(text);
  const known = !Number.isNaN(date.getTime());
  const made = make("time", "", known ? date.toLocaleString() : text);
  if (known) made.setAttribute("datetime", text);
  return made;
}
