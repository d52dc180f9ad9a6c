"""What stands on the signs: random labels with the mix of words, names and numbers that photos of streets show.

The word list was written for this project (it is not taken from a corpus), so it has the project's licence. It is
sorted into three bands instead of counted: little words that are everywhere, words of signs and packages, and general
vocabulary; `FREQUENCY` says how often each band is used. Invented names and inflections keep the vocabulary open, so
that a recogniser trained on it cannot learn the list by heart.
"""

import math
import string
import unicodedata
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

Labels = Callable[[np.random.Generator], str]
"""Draws a label: `random_label`, or `WordList.draw`."""


def _words(text: str) -> list[str]:
    return text.split()


LITTLE_WORDS = _words("""
the of and to in for on at by with from your you we our is it all no not now new open free up us or an as be are this
that my me do go get out off over more one two day here has have can will only best just any
""")

SIGN_WORDS = _words("""
sale exit entrance parking street road avenue lane park square station bus stop taxi train airport school college
university library museum gallery theatre theater cinema hotel motel inn hostel restaurant cafe coffee tea bar pub
grill pizza burger sushi noodle kitchen bakery bread cake sandwich salad soup steak chicken fish chips beef pork
cheese milk juice water beer wine spirits market store shop mall outlet center centre plaza tower building house home
garden flowers florist bank credit cash office post mail police fire hospital clinic pharmacy dental doctor medical
health care beauty hair salon nails spa massage fitness gym club dance music records books news press print copy photo
camera video digital phone mobile computer repair service services auto car cars tyres tires motors garage wash rental
fuel gas diesel oil electric power light lighting design studio art gift gifts cards toys games kids baby fashion
shoes boots jeans clothing jewelry watches diamond gold silver royal king queen crown star sun moon blue red green
black white yellow orange golden hours monday tuesday wednesday thursday friday saturday sunday january february march
april june july august september october november december closed push pull welcome please thank thanks warning danger
caution keep clear stay left right ahead north south east west way private public property staff customers visitors
delivery pick order drive through speed limit slow zone crossing men women ladies gentlemen toilet toilets restroom
floor level room lift stairs information tickets ticket platform gate terminal arrivals departures customs baggage
smoking dogs bicycle pedestrians children work emergency only call help first aid extinguisher hose assembly point
save special offer discount price half buy deal deals value extra super fresh natural organic original classic premium
quality famous great big little small large hot cold ice cream frozen daily week weekend night lunch dinner breakfast
brunch happy hour menu food foods drinks family world city town village county national international american english
french italian chinese indian thai mexican japanese greek global united central general grand union liberty victory
pacific atlantic western eastern southern northern river lake ocean beach harbour bridge hill valley mountain forest
island bay port castle church chapel cathedral abbey temple hall court palace manor cottage farm barn mill brewery
cellar vineyard orchard company limited group holdings partners agency estate estates insurance finance savings loans
investments legal law solicitors attorney travel tours cruise holiday vacation furniture carpets kitchens bathrooms
windows doors glass paint hardware tools supply supplies materials equipment machinery industrial engineering
construction contractors plumbing heating cooling security alarm locks keys cleaners laundry dry tailor alterations
optician vision eyes contact lenses pet pets animal vet veterinary sports tennis football golf cycles bikes ski surf
swim pool fishing boats marine yachts academy institute training learning education research science technology
systems solutions network networks data software media television radio broadcasting entertainment production pictures
stage opera comedy jazz festival concert exhibition events conference meeting reception lobby lounge suite suites
rooms let sold rent lease available apply inside within upstairs downstairs enter turn wait yield give look listen
mind step head wet high voltage trespassing prosecuted reserved residents permit holders loading unloading tow away
fine penalty maximum minimum height width weight tonnes miles metres minutes return max min tel fax web email online
visit est since inc ltd
""")

GENERAL_WORDS = _words("""
able about above accept account across action active address adult advance adventure advice afraid after again against
age agree air album alive allow almost alone along already always among ancient angel anger angle answer anxious
anyone apple area argue arm army around arrive arrow artist aside ask asleep attack attend author autumn average avoid
awake award away back bad bag balance ball bamboo banana band basic basket bath battle bear beat beautiful because
become bed before begin behind believe bell belong below belt bench bend benefit beside better between beyond bird
birth bitter blanket blend blind block blood bloom board body bold bone book boost border born borrow bottle bottom
bowl box boy brain branch brand brave break breath breeze brick bright bring broken brother brown brush bubble bucket
build bundle burn business busy butter button cabin cable calm camp canal candle canyon capital captain capture carbon
career careful carry case castle casual catch cause celebrate cell century certain chain chair challenge chance change
chapter charge charm chart chase cheap check cheer cherry chief child choice choose circle citizen civil claim class
clean clever climb clock close cloth cloud coast coat code coin collect colour combine come comfort common community
compact compare complete concept concern connect consider constant contain content continue control cook cool copper
coral corner correct cost cotton count country couple courage course cousin cover crack craft crane crash crazy create
creative crew crisp cross crowd crystal culture cup curious current curtain curve custom cycle damage dark dash date
daughter dawn dead deal dear debate decide deck deep deer defend define degree delicate delicious demand department
depend desert deserve desire desk detail develop device diet differ difficult dinner direct dirt discover discuss dish
display distance district divide dollar double doubt down dragon drama dream dress drift drink drop drum duck dust
duty eager eagle early earn earth easy echo edge edition effect effort eight either elegant element elephant eleven
else empire employ empty enable end enemy energy engine enjoy enough entire equal error escape essence even evening
event ever every exact example excellent except exchange excite exercise exist expand expect expert explain explore
express extend extreme fabric face fact factor fade fair faith fall false fame fancy far farmer fashion fast father
favour fear feather feature feel fence fever few field fifteen fifth fifty fight figure fill film final find finger
finish firm fit five fix flag flame flash flat flavour fleet flight flow flower fluid fly focus fold folk follow foot
force foreign forget fork form fort fortune forty forward found four fox frame freedom frequent friend frost fruit
full fun fund funny future gain galaxy gallon game gap gate gather gentle genuine ghost giant ginger girl glad globe
glory glove glow goal goat good goose grace grade grain grape graph grass gravity gray grey ground grow guard guess
guest guide guitar gum habit half hammer hand handle happen happy hard harvest hat hawk hazel heart heat heaven heavy
hello helmet herb heritage hero hidden hide hire history hit hobby hold hole hollow honest honey honour hope horizon
horn horse host huge human humble hundred hungry hunt hurry idea ideal ignore image imagine impact imperial import
improve inch include income increase indeed index industry inform inner inspire instant instead invite iron ivory
jacket jade jar jewel job join joke journal journey joy judge jump jungle junior jury justice keen kettle kick kind
kingdom kiss kite kitten knee knife knight know label labor lady lamb lamp land language last late latin laugh launch
lawn layer lazy lead leader leaf league lean leather leave legend lemon lend length less lesson letter liberal licence
life lily lime line link lion lip liquid list literature live load loan local lock logic lonely long lord lost lotus
loud love lovely low loyal luck lucky lunar luxury machine magic magnet mail main major make manage mango manner
manual many map maple marble margin mark marry mask master match matter maximum may maybe mayor meadow meal mean
measure meat melody melt member memory mental mention merchant mercury mercy mess metal method middle might military
million mind mineral minor mint minute mirror miss mission mix model modern moment money monkey month mood moral
morning most mother motion mouse mouth move movie much multiple muscle must mystery name narrow nation native nature
near neat neck need needle neighbour nerve nest never next nice nine noble nobody noise none noon normal nose note
nothing notice novel number nurse nut oak oath object observe obtain occur odd offer often olive once onion opinion
opposite option organ origin other ought ounce outer outside oven owl own owner oxygen pace pack page pain pair palm
panda panel paper parade parent parrot part party pass past path patient pattern pause peace peach pear pearl pen
pencil people pepper perfect perform perhaps period person phoenix piano picnic piece pig pilot pine pink pioneer pipe
pirate place plain plan planet plant plastic plate play player pleasure plenty plum plus pocket poem poet polar polish
polite popular portion position possible pot potato pound powder practice praise pray precious prefer prepare present
preserve pretty prevent pride prime prince princess prize problem process produce product profit program progress
project promise proof proper protect proud prove provide pulse pump pumpkin punch pupil pure purple purpose puzzle
quarter question quick quiet quilt quite rabbit race rain rainbow raise ranch random range rapid rare rate raven raw
reach read ready real reason receive recent record recover reduce reflect reform refresh regard region regular relax
release relief remain remember remote remove renew repeat replace reply report rescue respect rest result reveal
revenue review reward rhythm ribbon rice rich ride ring rise risk ritual rival roast robin robot rock rocket roll roof
root rope rose rough round route row rubber ruby rule run rural rush sacred sad saddle safe safety sail saint salmon
salt same sample sand satin sauce scale scan scene scent school score scout screen sea seal search season seat second
secret section seed seek seem select sell send senior sense series serious serve session set seven shade shadow shake
shape share shark sharp shave sheep shelf shell shelter shine ship shirt shock shoot shore short should show shower
shrimp side sign signal silence silk simple sing single sister site six size skill skin sky sleep slice slide slim
slip smart smell smile smoke smooth snack snake snow soap social society soft soil solar soldier solid solve some song
soon soul sound source space spare spark speak spell spend spice spider spirit splash split spoon spring spy stable
stand standard start state statue steam steel stem stick still stitch stock stone storm story strange strategy stream
strength stretch strike string strong student study stuff style subject sublime success such sudden sugar suit summer
summit sunny supper support supreme sure surface surprise sweet swift swing sword symbol table tail take tale talent
talk tall target taste tax teach team tear tell ten tender tent term test text texture than then theory there thick
thin thing think third thirty thought thousand thread three throat throne thunder tide tie tiger time tiny tip tired
title toast tobacco today together tomato tomorrow tone tongue tonight tooth top topic torch total touch tough tour
toward track trade tradition trail transfer transport trap treasure treat tree trek trend trial tribe trick trip
triple tropical trouble truck true trumpet trust truth try tube tulip tunnel turkey turtle twelve twenty twice twin
twist type ultimate umbrella uncle under uniform unique unit universe until upper urban urgent use useful usual valid
value vanilla vapor variety vast vault vegetable velvet venture venus verse very vessel vibrant view vintage violet
virtue vital vivid voice volcano volume vote voyage wage wagon walk wall walnut want war warm warrior watch wave
wealth wear weather wedding weigh well whale what wheat wheel when where which while whisper whole why wide wild
willow win wind window wing winner winter wire wise wish witch wolf woman wonder wood wool word worker worth would
wrap write wrong yacht yard year yellow yes yesterday yet yoga young zebra zero zigzag accommodation administration
advertisement announcement appointment archaeology architecture celebration championship chocolate collection
commercial communication competition conservation consultant convenience cooperation corporation declaration
destination development electronics environment establishment experience foundation generation government headquarters
immigration independence individual infrastructure international investigation laboratory maintenance management
manufacturing mathematics metropolitan neighbourhood observatory opportunity orchestra organisation performance
pharmaceutical photography population possibility presentation professional programme publication reconstruction
refreshments registration representative residential responsibility revolution sanctuary scholarship specialist
strawberry temperature traditional transformation transportation understanding unforgettable watermelon wholesale
worldwide
""")

FREQUENCY = {"little": 0.16, "sign": 0.48, "general": 0.36}  # shares of the three bands among dictionary words
# Shares of upper case, Title case, lower case and small words with a capital inside, judged by eye on street photos.
CASE_SHARES = {"upper": 0.52, "title": 0.24, "lower": 0.22, "camel": 0.02}

_ONSETS = _words("b br c ch cl d dr f fl g gl gr h j k kl l m n p pl pr qu r s sh sl st str t th tr v w y z")
_VOWELS = _words("a a a e e e i i o o u ai au ea ee ie oa oo ou")
_CODAS = _words("b ck d f g ll l lt m mp n nd ng nt p r rd rk rn s ss st t x z")
_ENDINGS = ["", "", "", *_words("a o er ton ley son berg ini ville tech mart co field ford")]
_TOP_LEVEL = ["com", "org", "net", "co.uk", "de", "info"]
_ALPHANUMERIC = string.digits + string.ascii_letters


def _pick(rng: np.random.Generator, items: list[str]) -> str:
    return items[int(rng.integers(len(items)))]


def _digits(rng: np.random.Generator, count: int) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, count))


def _dictionary_word(rng: np.random.Generator) -> str:
    """One lower-case English word; nouns and verbs alike may take a regular ending."""
    share = rng.random()
    if share < FREQUENCY["little"]:
        return _pick(rng, LITTLE_WORDS)
    general = share >= FREQUENCY["little"] + FREQUENCY["sign"]
    word = _pick(rng, GENERAL_WORDS if general else SIGN_WORDS)
    ending = rng.random()
    if len(word) > 3 and word[-1] not in "sy" and ending < 0.10:
        return word + "s"
    if general and 3 < len(word) < 8 and word[-1] not in "sye" and ending < 0.15:
        return word + _pick(rng, ["ing", "ed", "er", "ers"])
    return word


def _invented_name(rng: np.random.Generator) -> str:
    """A pronounceable lower-case name that is in no dictionary."""
    syllables = 1 + int(rng.random() < 0.55)
    word = ""
    for _ in range(syllables):
        word += _pick(rng, _ONSETS) + _pick(rng, _VOWELS)
    if rng.random() < 0.7:
        word += _pick(rng, _CODAS)
    return word + _pick(rng, _ENDINGS)


def _price(rng: np.random.Generator) -> str:
    amount = str(int(10 ** rng.uniform(0, 3.2)))
    cents = _pick(rng, ["", ".99", ".50", ".95", ".00", "." + _digits(rng, 2)])
    return _pick(rng, ["$", "$", ""]) + amount + cents


def _clock(rng: np.random.Generator) -> str:
    separator = _pick(rng, [":", "."])
    return f"{rng.integers(0, 24)}{separator}{rng.integers(0, 60):02d}" + _pick(rng, ["", "", "am", "pm"])


def _phone(rng: np.random.Generator) -> str:
    form = _pick(rng, ["ddd-dddd", "ddddddd", "(ddd)", "ddd-ddd-dddd", "dddd", "0dddd", "ddddd"])
    return "".join(_digits(rng, 1) if mark == "d" else mark for mark in form)


def _code(rng: np.random.Generator) -> str:
    """A licence plate, a room or a part number."""
    form = _pick(rng, ["Ld", "Ldd", "LLdd", "LL-ddd", "ddL", "LLLdddd", "dLLLddd", "Lddd", "dd/dd", "d-dd"])
    letters = string.ascii_uppercase
    return "".join({"L": _pick(rng, list(letters)), "d": _digits(rng, 1)}.get(mark, mark) for mark in form)


def _number(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.45:
        return str(int(10 ** rng.uniform(0, 4)))
    if kind < 0.60:
        return str(int(rng.integers(1880, 2031)))  # years
    if kind < 0.75:
        return str(int(rng.integers(1, 100))) + _pick(rng, ["%", "th", "km", "m", "kg", "ml", "p", "+"])
    number = int(rng.integers(1, 32))
    return f"{number}/{rng.integers(1, 13)}" if kind < 0.88 else f"No.{number}"


def _random_string(rng: np.random.Generator) -> str:
    """Any characters: keeps the reader from guessing by context, and shows every class of the alphabet."""
    length = int(rng.integers(1, 9))
    pool = _ALPHANUMERIC if rng.random() < 0.5 else string.ascii_uppercase + string.digits
    return "".join(pool[int(i)] for i in rng.integers(0, len(pool), length))


def _web_address(rng: np.random.Generator) -> str:
    stem = _dictionary_word(rng) if rng.random() < 0.6 else _invented_name(rng)
    return _pick(rng, ["www.", "", ""]) + stem + "." + _pick(rng, _TOP_LEVEL)


def _cased(word: str, rng: np.random.Generator) -> str:
    share = rng.random()
    if share < CASE_SHARES["upper"]:
        return word.upper()
    if share < CASE_SHARES["upper"] + CASE_SHARES["title"]:
        return word.capitalize()
    if share < 1 - CASE_SHARES["camel"] or len(word) < 6:
        return word
    return word[:3].capitalize() + word[3:].capitalize()


def _punctuated(word: str, rng: np.random.Generator) -> str:
    """Punctuation as it sticks to words on signs."""
    s = "S" if word.isupper() else "s"
    forms = [
        "{}!",
        "{}.",
        "{},",
        "{}:",
        "{}?",
        "({})",
        "'{}'",
        '"{}"',
        "{}'" + s,
        "{}'" + s,
        "{}&",
        "*{}",
        "-{}",
        "{}-",
    ]
    return _pick(rng, forms).format(word)


_NUMBERS = (_number, _number, _price, _clock, _phone, _code)


def random_label(rng: np.random.Generator) -> str:
    """One label: ASCII letters, digits and punctuation, 1 to about 22 characters, at least one letter or digit."""
    kind = rng.random()
    if kind < 0.76:
        label = _cased(_dictionary_word(rng), rng)
    elif kind < 0.85:
        label = _cased(_invented_name(rng), rng)
    elif kind < 0.95:
        label = _NUMBERS[int(rng.integers(len(_NUMBERS)))](rng)
    elif kind < 0.96:
        label = _web_address(rng)
    else:
        label = _random_string(rng)
    return _punctuated(label, rng) if label.isalpha() and rng.random() < 0.06 else label


class WordList:
    """Words of one's own, drawn as they stand, each as often as its weight says.

    Args:
        words: at least one.
        weights: as many positive numbers.
    """

    def __init__(self, words: Sequence[str], weights: Sequence[float]) -> None:
        self.words, self.weights = tuple(words), np.array(weights, dtype=np.float64)
        ends = np.cumsum(self.weights / self.weights.max())
        self._ends = ends / ends[-1]  # the last is 1, and every chance is below that

    def __len__(self) -> int:
        return len(self.words)

    def draw(self, rng: np.random.Generator) -> str:
        """One of the words."""
        return self.words[int(np.searchsorted(self._ends, rng.random(), side="right"))]

    def without(self, lost: Collection[str]) -> "WordList":
        """The list less some of its words; one at least must be left."""
        kept = [number for number, word in enumerate(self.words) if word not in lost]
        return WordList([self.words[number] for number in kept], self.weights[kept].tolist())


LIST_FORM = "one word a line was expected, and behind a tab, if you like, how often it is drawn (a positive number)"


def read_word_list(path: str | Path) -> WordList:
    """A UTF-8 text file with one word a line, and in a second column behind a tab how often it is drawn, else 1.

    Letters with accents are composed (Unicode NFC), since a face has a picture for the whole; empty lines do not count.

    Raises:
        ValueError: no such file, not UTF-8, no word, or a line that is neither; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"word list {path}: no such file; {LIST_FORM}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"word list {path} is not UTF-8 ({error}); save it in that encoding") from error
    words, weights = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        word, *columns = (column.strip() for column in line.split("\t"))
        if not word and not any(columns):
            continue
        if not word or len(columns) > 1:
            raise ValueError(f"word list {path}, line {number}: {line!r}; {LIST_FORM}")
        words.append(unicodedata.normalize("NFC", word))
        weights.append(_weight(columns[0], f"word list {path}, line {number}") if columns else 1.0)
    if not words:
        raise ValueError(f"word list {path} is empty; {LIST_FORM}")
    return WordList(words, weights)


def _weight(text: str, where: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(f"{where}: {text!r} is no positive number; {LIST_FORM}")
    return weight
