import re

import pytest

from dataset.listing import Entry, ListError, read_list


@pytest.mark.parametrize(
    ("line", "name", "label"),
    [
        ("a.png\tHotel", "a.png", "Hotel"),
        ("my a.png\tTwo words ", "my a.png", "Two words "),
        ("a.png\t", "a.png", ""),
        ("a.png Hotel", "a.png", "Hotel"),
        ("a.png Two words", "a.png", "Two words"),
        ('a.png, "Hotel"', "a.png", "Hotel"),
        ('a.png,"Hotel"', "a.png", "Hotel"),
        ('my a.png, "Two, words"', "my a.png", "Two, words"),
        (r'a.png, "5\" \\ x"', "a.png", r'5" \ x'),
        ('a.png, ""', "a.png", ""),
        ("a.png, Hotel", "a.png", "Hotel"),
        ('a.png\t"Hotel"', "a.png", '"Hotel"'),
        ("a.png say,", "a.png", "say,"),
    ],
)
def test_lines_of_the_list(tmp_path, line, name, label):
    gt = tmp_path / "gt.txt"
    gt.write_bytes(b"\xef\xbb\xbf" + f"\r\n{line}\r\n   \n".encode())
    assert read_list(gt) == [Entry(name, label, f"{gt}:2")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.jpg\tHotel\nd.png\n", r"gt.txt:2: 'd.png' has no label; expected `path<TAB>label`"),
        (b"a.jpg\tHotel\n\tx\n", r"gt.txt:2: '\\tx' has no path"),
        (b"a.jpg\tHotel\nd.png\tcaf\xe9\n", r"gt.txt:2: not UTF-8"),
        (b"\xef\xbb\xbfa.jpg\tHotel\n\xe9.png\tx\n", r"gt.txt:2: not UTF-8"),
        (b"\n\n", r"gt.txt names no picture"),
        (b"", r"gt.txt names no picture"),
    ],
)
def test_a_wrong_list_names_the_line(tmp_path, content, message):
    (tmp_path / "gt.txt").write_bytes(content)
    with pytest.raises(ListError) as caught:
        read_list(tmp_path / "gt.txt")
    assert re.search(message, str(caught.value))


def test_labels_are_cut_at_line_ends_only(tmp_path):
    gt = tmp_path / "gt.txt"
    gt.write_bytes("a.jpg\tone\u2028two\x0bthree\r\nd.png\tx\r\n".encode())
    assert [entry.label for entry in read_list(gt)] == ["one\u2028two\x0bthree", "x"]
