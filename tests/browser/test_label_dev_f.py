def test_bench(page, lab, quick_project, tmp_path):
    import sys, time, json; sys.path.insert(0,"/work/main/tests/browser")
    import test_label_card as T
    from mlops_nb.core.settings import load_settings
    from mlops_nb.inner_loop.store import LabelItem
    settings = load_settings("dev", lab.project)
    t=time.time()
    quick_project(settings, "text_classification", *({"text": f"The room {n} was cold."} for n in range(100_000)), classes=T.MOODS, name="moods")
    print("created", time.time()-t)
    T.write_notebook(lab.project, "moods.ipynb", T.CARD)
    lab.run_all(page, "moods.ipynb", tmp_path / "start.png")
    T.begin(page)
    res = page.evaluate("""async () => {
      const root = document.querySelector('.mlops-label'), state = root.querySelector('.saving'), ack = [], show = [];
      const until = (test) => new Promise(done => { const o = new MutationObserver(() => { if (test()) { o.disconnect(); done(); } }); o.observe(root, {subtree: true, attributes: true, childList: true, characterData: true}); if (test()) { o.disconnect(); done(); } });
      const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
      const key = (key) => root.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
      const saved = () => state.dataset.state === 'saved';
      await until(saved);
      for (let n = 0; n < 100; n++) {
        const before = root.dataset.item;
        let t = performance.now(); key('g'); await until(saved); ack.push(performance.now() - t);
        t = performance.now(); key('Enter'); await until(() => root.dataset.item !== before && root.querySelector('.stage').offsetParent); const hit = performance.now(); await frame(); show.push(performance.now() - t);
        await until(saved); ack.push(performance.now() - t); await new Promise(r => setTimeout(r, 60));
      }
      const q = (a, p) => a.sort((x, y) => x - y)[Math.floor(a.length * p)].toFixed(1);
      return {ack: [q(ack, .5), q(ack, .95), q(ack, .99)], show: [q(show, .5), q(show, .95), q(show, .99)]};
    }""")
    print(res)
    page.screenshot(path="/tmp/bench.png")
