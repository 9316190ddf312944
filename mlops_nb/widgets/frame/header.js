// Above the item: the project, how far it is and how fast, how well people agree, and the instructions.

function makeHeader({ own, project, user, review, taste, now }, openSheet) {
  const bar = make("progress", { max: 1, value: 0, id: `${own}-progress` }), place = make("span", { className: "place" });
  const pace = make("span", { className: "pace" }), quality = make("span", { className: "quality" });
  const sheetButton = button("Keys", openSheet);
  sheetButton.append(make("kbd", { textContent: "?", "aria-hidden": "true" }));
  const element = make("header", {}, make("strong", { textContent: project.name }), make("span", { className: "quiet", textContent: review ? `review by ${user}` : user }), place, bar, pace, quality, sheetButton);
  const about = make("details", { className: "instructions" }, make("summary", { textContent: "Instructions" }), make("div", { className: "prose" }, ...makeProse([project.description, project.instructions].filter(Boolean).join("\n\n"))));
  about.hidden = !project.instructions && !project.description;
  about.open = !about.hidden && !taste.get(`read ${project.key}`); // until the first answer

  return {
    element, about,
    turn: () => (about.hidden ? false : void (about.open = !about.open)),
    close() { // whoever has answered has read them
      if (about.open && !taste.get(`read ${project.key}`)) [about.open] = [false, taste.put(`read ${project.key}`, true)];
    },
    show() {
      const { answers = 0, needed = 0, per_hour: perHour = 0, seconds_left: left = 0, mine = 0 } = now.progress ?? {};
      const { final = 0, items = 0, disputed = 0, review: looks = 0 } = now.progress ?? {}, [done, all, unit] = review ? [final, items, "final item"] : [answers, needed, "answer"];
      bar.max = Math.max(1, all);
      bar.value = done;
      write(place, `${done.toLocaleString("en")} of ${count(all, unit)}`);
      mark(bar, "aria-label", place.textContent);
      if (review) write(pace, [disputed && `${disputed.toLocaleString("en")} disputed`, looks && `${looks.toLocaleString("en")} to look at`].filter(Boolean).join(" \u00b7 "));
      else write(pace, [mine && `${mine.toLocaleString("en")} by you`, perHour && `${Math.round(perHour).toLocaleString("en")} per hour`, left && `about ${duration(left)} left`].filter(Boolean).join(" \u00b7 "));
      write(quality, now.agreement.slice(0, 1).map((one) => `${one.measure} ${one.value.toFixed(2)}`).join());
      mark(quality, "title", now.agreement.map((one) => one.words).join("\n"));
    },
  };
}
