// What the card says to the person, and a short question that it asks in the card.

function makeVoice() {
  const element = make("p", { className: "spoken", role: "status" });
  let timer = 0;
  return {
    element,
    say(text, loud = false) {
      element.classList.toggle("loud", loud || Boolean(text));
      write(element, text);
      clearTimeout(timer);
      timer = setTimeout(() => (element.classList.remove("loud"), write(element, "")), 6_000);
    },
    close: () => clearTimeout(timer),
  };
}

function makeQuestion({ own, focus }) {
  const form = make("form", { className: "answer", hidden: true });

  function ask(words, hint, done) {
    const reason = make("input", { type: "text", id: `${own}-reason`, placeholder: hint, autocomplete: "off", maxLength: 1000 });
    const send = make("button", { type: "submit", className: "primary", textContent: words });
    form.replaceChildren(make("label", { htmlFor: reason.id, textContent: "Reason" }), reason, send, button("Cancel", () => (close(), focus())));
    form.setAttribute("aria-label", words);
    form.onsubmit = (event) => {
      event.preventDefault();
      const text = reason.value.trim();
      done(text);
      if (form.contains(reason)) close();
      focus();
    };
    form.onkeydown = (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
        focus();
      }
      if (event.key !== "Enter" || event.target !== reason) return;
      event.preventDefault(); // JupyterLab keeps an Enter in a cell's output from sending a form
      event.stopPropagation();
      form.requestSubmit(send);
    };
    form.hidden = false;
    reason.focus();
  }
  function close() {
    form.hidden = true;
    form.replaceChildren();
  }
  return { element: form, ask, close };
}
