"""Name what a camera, a video or a folder shows: simple.py BUNDLE SOURCE."""

import argparse

import edge_fg

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("bundle")
parser.add_argument("source")
given = parser.parse_args()
with edge_fg.load(given.bundle) as classifier, edge_fg.open_source(given.source) as camera:
    for frame, prediction in edge_fg.stream(camera, classifier):
        print(frame.number, prediction.label, f"{prediction.confidence:.0%}")
