// Signing in with a connection string.

import { fill, h, problem } from "../dom.js";
import * as session from "../session.js";

/** Shows the form in `element`; `done` is called with a token in hand. */
export function signIn(element, message, done) {
  const said = h("div", { role: "status" }, message && h("p", { class: "note" }, message));
  const input = h("textarea", {
    id: "connection-string", rows: "4", spellcheck: "false", autocomplete: "off", required: true,
    placeholder: "HostName=…;SharedAccessKeyName=service;SharedAccessKey=…",
  });
  const button = h("button", { type: "submit", class: "main-action" }, "Sign in");
  const form = h("form", { onsubmit: submit },
    h("div", { class: "logo" }, h("img", { src: "img/logo.svg", alt: "" }), h("div", null, h("h1", null, "Fleetline"), h("p", null, "Console of this hub"))),
    said,
    h("label", { for: "connection-string" }, "Connection string of a shared access policy", input),
    h("p", { class: "note" }, "The key stays in this page: it signs a token for twelve hours, and only the token is sent."),
    button);
  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      await session.signIn(input.value);
      await done();
      input.value = "";
    } catch (error) {
      const refused = error.status === 401;
      fill(said, problem(refused ? "The hub doesn't take this policy or key." : error));
    } finally {
      button.disabled = false;
    }
  }
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  fill(element, form);
  input.focus();
}
