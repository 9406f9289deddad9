"""Name what a camera, a video or a folder shows: simple.py BUNDLE SOURCE."""

import sys

import edge_fg

bundle, source = sys.argv[1:3]
with edge_fg.load(bundle) as classifier, edge_fg.open_source(source) as camera:
    for frame, prediction in edge_fg.stream(camera, classifier):
        print(frame.number, prediction.label, f"{prediction.confidence:.0%}")
