"The player's buttons, run by node on a stand-in for the page. What a browser paints is not tested here."
import html, json, re, shutil, subprocess

import pytest
import torch

from my3yearold.show import Player

PAGE = """
const [captions, height, max, oninput, onclick] = JSON.parse(require('fs').readFileSync(0));
const window_ = {style: {}}, line = {}, button = {textContent: 'play'};
let value = '0';
const slider = {get value() { return value }, set value(x) { value = String(x) }, max,
                dispatchEvent() { moved.call(slider) }};
const player = {dataset: {captions, height}, querySelector: tag => ({input: slider, div: window_, output: line})[tag]};
slider.closest = button.closest = () => player;
global.Event = class {};
const moved = new Function(oninput), pressed = new Function(onclick), seen = [];
const look = () => seen.push([value, window_.style.backgroundPositionY, line.textContent, button.textContent]);
slider.value = 2; moved.call(slider); look();
pressed.call(button); look();                                   // plays on from there
setTimeout(() => { look(); pressed.call(button); look();        // at the end: starts again ...
                   pressed.call(button); look(); console.log(JSON.stringify(seen)) }, 300);   // ... and stops
"""


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_slider_and_button():
    text = Player(
        torch.zeros(5, 3, 8, 8, dtype=torch.uint8),
        ["first", 'a "quoted" <b>', "third", "fourth", "last"],
        scale=2,
        duration=0.01,
    ).html
    attributes = [
        html.unescape(re.search(f'{name}="([^"]*)"', text)[1])
        for name in ("data-captions", "data-height", "max", "oninput", "onclick")
    ]
    assert json.loads(attributes[0])[1] == 'a "quoted" <b>'
    done = subprocess.run(
        ["node", "-e", PAGE], input=json.dumps(attributes), capture_output=True, text=True, timeout=60
    )
    assert not done.stderr
    assert json.loads(done.stdout) == [
        ["2", "-32px", "third", "play"],
        ["3", "-48px", "fourth", "stop"],
        ["4", "-64px", "last", "play"],
        ["0", "0px", "first", "stop"],
        ["0", "0px", "first", "play"],
    ]
