"""The genres of the synthetic corpus: where in the bar each layer plays. Instruments are in `instruments`.

A pattern is one bar in equal steps; blanks only make it readable. In all patterns `.` is a rest and `-` holds the
previous note.

- drums: `x` a stroke, `g` a quiet stroke, `o` (hat only) an open hat;
- bass: the degree of the scale above the root of the bar's chord, 1 to 8;
- chords: `x` the complete chord; 1 to 4 one tone of it, from the lowest to the highest.

Each layer has alternatives, and a track plays one of them. Several genres share many patterns, so that one layer is
often not enough to recognise a genre: two or three are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

Patterns = tuple[str, ...]

FOUR_ON_THE_FLOOR = "x... x... x... x..."
BACKBEAT = ".... x... .... x..."
EIGHTHS = "x.x. x.x. x.x. x.x."
SIXTEENTHS = "xgxg xgxg xgxg xgxg"
TRESILLO = "x..x ..x. x..x ..x."
OFF_BEATS = "..x. ..x. ..x. ..x."
HELD = "x--- ---- ---- ----"
HELD_BASS = "1--- ---- ---- ----"


@dataclass(frozen=True)
class Style:
    """The patterns of one genre."""

    tempo: tuple[float, float]  # lowest and highest, in quarter notes per minute
    kick: Patterns
    snare: Patterns
    hat: Patterns
    bass: Patterns
    chords: Patterns
    beats: int = 4  # in a bar


STYLES: dict[str, Style] = {
    "arpeggio": Style(
        tempo=(94, 138),
        kick=(FOUR_ON_THE_FLOOR,),
        snare=(BACKBEAT, ".... .... .... x..."),
        hat=(SIXTEENTHS, "..o. ..o. ..o. ..o."),
        bass=(HELD_BASS, "1--- ---- 1--- ----"),
        chords=("1234 1234 1234 1234", "1234 3212 3432 1234", "1.2. 3.4. 1.2. 3.4."),
    ),
    "ballad": Style(
        tempo=(86, 126),
        kick=("x... .... ..x. ....", "x... .... .... ...."),
        snare=(".... .... x... ....",),
        hat=(EIGHTHS, "x... x... x... x..."),
        bass=("1--- ---- 5--- ----", HELD_BASS),
        chords=("4-3- 2-1- 4-3- 2-1-", "4--- 3--- 2--- 1---", "4-3- 2-1- 2-3- 2-1-"),
    ),
    "bossa": Style(
        tempo=(90, 132),
        kick=("x..x x..x x..x x..x", "x..x .... x..x ...."),
        snare=("x..x ..x. ..x. .x..", "..x. x... x..x ..x."),
        hat=(SIXTEENTHS, EIGHTHS),
        bass=("1--5 5--5 1--5 5--5", "1--5 ---- 5--1 ----"),
        chords=("x-.x -.x- ..x- .x-.", "x-.. x-.x -..x -.x-"),
    ),
    "breakbeat": Style(
        tempo=(94, 138),
        kick=("x.x. .... ..xx ....", "x..x .... .xx. ...."),
        snare=(".... x..g .g.. x..g", ".... x..g .g.. ..x."),
        hat=(EIGHTHS, SIXTEENTHS),
        bass=("1..1 ..5. .1.. 8...", "1.1. ..8. .1.. 5.5."),
        chords=(HELD, "x--- ---- ..x- ----"),
    ),
    "drone": Style(
        tempo=(86, 130),
        kick=("x... .... .... ....", "x... .... ..x. ...."),
        snare=(".... .... .... x...", ".... .... .... ...."),
        hat=(TRESILLO,),
        bass=(HELD_BASS,),
        chords=(HELD, "x--- ---- x--- ----"),
    ),
    "house": Style(
        tempo=(94, 138),
        kick=(FOUR_ON_THE_FLOOR,),
        snare=(BACKBEAT,),
        hat=("..o. ..o. ..o. ..o.", SIXTEENTHS),
        bass=("..1. ..1. ..1. ..1.", "..1. ..1. ..8. ..1."),
        chords=("x..x ..x. ..x. ....", "x..x ..x. .x.. x..."),
    ),
    "march": Style(
        tempo=(90, 134),
        kick=("x... .... x... ....", FOUR_ON_THE_FLOOR),
        snare=("x.xx x.xx x.xx xxxx", "x.gg x.gg x.gg xgxg"),
        hat=("x... x... x... x...", BACKBEAT),
        bass=("1... .... 5... ....", "1... 3... 5... 3..."),
        chords=(BACKBEAT, OFF_BEATS),
    ),
    "reggae": Style(
        tempo=(88, 130),
        kick=(".... .... x... ....", "x... .... x... ...."),
        snare=(".... .... x... ....",),
        hat=(EIGHTHS, OFF_BEATS),
        bass=("1.1. ..3. .5.. ....", "..1. 1.3. 5... ...."),
        chords=(OFF_BEATS, "..xx ..x. ..xx ..x."),
    ),
    "shuffle": Style(
        tempo=(90, 134),
        kick=("x.. ... x.. ...", "x.. x.. x.. x.."),
        snare=("... x.. ... x..", "... x.g ... x.g"),
        hat=("x.x x.x x.x x.x", "x.. x.x x.. x.x"),
        bass=("1-- 3-- 5-- 6--", "1.1 3.3 5.5 6.5"),
        chords=("..x ... ..x ...", "x.. ..x ... ..x"),
    ),
    "waltz": Style(
        tempo=(90, 134),
        kick=("x... .... ....", "x... .... ..x."),
        snare=(".... x... x...", ".... .... x..."),
        hat=("x... x... x...", "x.x. x.x. x.x."),
        bass=("1--- ---- ----", "1--- .... 5---"),
        chords=(".... x... x...", ".... x-.. x-.."),
        beats=3,
    ),
}
