"""What the page calls attacks and controls, and what it says that they do."""

from __future__ import annotations

from ..evidence import OUTLIERS, OWN

_ATTACKS = {
    "A1": (
        "reconstruction",
        "hands the generator a patient's own label map and asks: does it redraw that scan too well?",
    ),
    "A2-LiRA": (
        "shadow generators, by spread",
        "trains many generators, each on half of the patients, and asks: does this one redraw a patient's scan so well "
        "as those do that never saw the patient, or better?",
    ),
    "A2-RMIA": (
        "shadow generators, by rank",
        "trains many generators, each on half of the patients, and asks whether a patient's scan fits this one better, "
        "measured by them, than the scans of people whom nobody trained on",
    ),
    "A3": ("nearest neighbour", "searches the synthetic volumes for one that lies too close to a patient's scan"),
    "A3-WB": (
        "search of the weights",
        "hands the generator a patient's own label map, as A1 does, and lets its weights say in 20 small steps how to "
        "change the drawing and the coarse noise, of which one value every few voxels can move, so that it paints the "
        "scan better: does it come closer than a generator that never saw the patient? On the generators it was tested "
        "with it told members no better after those steps than at its start, so it is little more than A1",
    ),
    "A4": ("crowding", "counts how many synthetic volumes lie close to a patient's scan"),
    "A5": (
        "density",
        "asks whether synthetic volumes crowd around a patient's scan more than scans of other people do",
    ),
    "A6": ("discriminator", "asks the network that learnt to tell real scans from synthetic ones how real a scan is"),
    "A7": (
        "likeness to a copy",
        "takes the released volume that is most like a patient's scan, moved and mirrored as it fits best, and asks "
        "how like it is: are members repeated more closely than strangers?",
    ),
    "A8": (
        "what the coordinator saw",
        "takes the generator that a patient's own hospital sent in each round and asks: does it redraw the patient's "
        "scan better than what the other hospitals sent in the same round?",
    ),
    "A9": (
        "coins guessed",
        "puts the other attacks' answers together and guesses whom the coin made a member; how many guesses are right "
        "proves a least ε",
    ),
    "A10": (
        "attribute",
        "guesses from the synthetic volumes how large a structure in a patient's scan is, without the patient's label "
        "map: does it come nearer to the truth than with volumes of a generator that never saw the patient?",
    ),
    "B0": (
        "blind baseline",
        "guesses from the scans alone, without the generator. It has to fail: if it succeeds, the two groups differ "
        "anyway and the other attacks prove nothing",
    ),
}

_FROM_OWN_MAPS = (
    "; here among volumes painted from the patients' own label maps. Those are never released: it shows what they "
    "would betray"
)

_HOLDS = {
    "S": "the synthetic volumes",
    "G": "the generator, to question at will",
    "W": "the generator's weights",
    "I": "generator and discriminator",
    "F": "the coordinator's view of every round",
    "none": "the patients' scans only",
}

_CONTROLS = {
    "positive-model": (
        "a generator made to memorise",
        "We train a generator so badly that it learns its patients by heart. The attacks have to notice.",
    ),
    "positive-set": (
        "planted copies",
        "We hide copies of patients' scans among synthetic volumes. The attacks have to find them.",
    ),
    "positive-copies": (
        "copies, searched for",
        "We hide copies of patients' scans and label maps, mirrored and shifted ones too. The searches for copies have "
        "to find them.",
    ),
    "positive-insider": (
        "a discriminator made to memorise",
        "We train a discriminator on a few patients for long. The attack on discriminators has to notice; no release "
        "hangs on it.",
    ),
    "positive-white-box": (
        "a memorising generator, searched",
        "We search the weights of a generator that learnt its patients by heart. The search has to notice.",
    ),
    "positive-shadows": (
        "a memorising generator, beside shadows",
        "We compare a generator that learnt its patients by heart with the shadow generators. The comparison has to "
        "notice.",
    ),
    "canary": (
        "the promised noise, counted",
        "We take all the noised steps in a run of its own, on made-up patients, some more of whom are in or out by the "
        "toss of a coin, and guess the coins. Without noise they must show; with the promised noise, no more than ε "
        "allows.",
    ),
    "negative": (
        "generators that never saw these patients",
        "We attack generators trained on other patients. The attacks have to find nothing.",
    ),
    "blind": (
        "guessing without a generator",
        "We try to tell the two groups apart without the generator. It must not be possible.",
    ),
}


def attack_name(identifier: str) -> str:
    """A short name; for an attack unknown here, its identifier."""
    base = identifier.removesuffix(OUTLIERS)
    bare = base.removesuffix(OWN)
    name = _ATTACKS[bare][0] if bare in _ATTACKS else bare
    own = ", own label maps" if base.endswith(OWN) else ""
    return name + own + (", on unusual patients" if identifier.endswith(OUTLIERS) else "")


def on_whom(identifier: str) -> str:
    """In which picture its curve is drawn."""
    if identifier.endswith(OUTLIERS):
        return "on unusual patients"
    return "on everybody, own label maps" if identifier.endswith(OWN) else "on everybody"


def attack_deed(identifier: str) -> str:
    """What it does, in a sentence without its subject; empty for one unknown here."""
    if not identifier.endswith(OUTLIERS):
        bare = identifier.removesuffix(OWN)
        deed = _ATTACKS[bare][1] if bare in _ATTACKS else ""
        return deed + (_FROM_OWN_MAPS if deed and bare != identifier else "")
    return "the same, on the quarter of the patients who are least like the others and easiest to recognise"


def attacker_holds(threat_model: str) -> str:
    """What the attacker has in hand."""
    return _HOLDS.get(threat_model, threat_model)


def control_name(identifier: str) -> str:
    """A short name."""
    return _CONTROLS[identifier][0] if identifier in _CONTROLS else identifier


def control_deed(identifier: str) -> str:
    """What it does; empty for one unknown here."""
    return _CONTROLS[identifier][1] if identifier in _CONTROLS else ""
