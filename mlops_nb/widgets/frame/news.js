// What Python tells: items, what it has saved and what it has refused, how far everybody is.

function makeNews({ review, outbox, tell, now, say, refresh }, trail, stage, header, classes) {
  // What the store refuses has not happened: the answer is what follows from the other events.
  function refuse(item, id, words) {
    const place = now.trail.findIndex((one) => one.told.id === item), one = now.trail[place];
    say(`Not saved: ${words}`, true);
    if (!one) return;
    const kept = [];
    one.fold = one.events.filter((event) => event.id !== id).reduce((fold, event) => {
      try {
        const next = foldEvent(fold, event);
        kept.push(event);
        return next;
      } catch {
        return fold;
      }
    }, beginFold());
    one.events = kept;
    one.problem = `Not saved: ${words}`;
    if (place !== now.at && one.fold.state === "open") {
      now.at = place;
      trail.show();
    } else stage.show();
  }
  function saved(found) {
    const refused = Object.entries(found).filter(([, words]) => words);
    const decided = review ? new Set(Object.keys(found).map((id) => outbox.get(id)).filter((event) => ["submit", "accept"].includes(event?.kind)).map((event) => event.item)) : [];
    for (const [id, words] of refused) refuse(outbox.get(id)?.item, id, words);
    outbox.saved(Object.keys(found));
    for (const item of decided) if (now.trail.some((one) => one.told.id === item)) tell({ ask: "item", item }); // the decision has left events of its own
    if (refused.length) refresh();
  }
  return function hear(message, buffers) {
    if (message.item) return void trail.arrive(message.item, buffers);
    if (message.again) return outbox.all();
    if (message.saved) saved(message.saved);
    if (message.progress) now.progress = message.progress;
    if (message.agreement) now.agreement = message.agreement;
    if (message.others) for (const one of now.trail) if (one.told.id === message.of) one.told.others = message.others;
    if (message.none) [now.none, now.asking] = [message.none, false];
    if (message.problem) {
      now.problem = message.problem;
      if (message.ask === "next") now.asking = false;
    } else if (message.saved || message.item) now.problem = "";
    stage.show();
    header.show();
    if (message.saved || message.progress) classes.show();
  };
}
