"""Train, test or try a scene-text super-resolution system, or a recogniser; see `python main.py --help`."""

import sys


def main() -> int:
    """Read the command line, pick the verb, call it; returns the exit code."""
    try:
        if "--doctor" in sys.argv:  # it says what is missing, so nothing that may be is imported before
            from interface import doctor  # noqa: PLC0415

            return doctor.run()
        if any(argument.split("=")[0] == "--list" for argument in sys.argv[1:]):
            from interface import listing  # noqa: PLC0415

            return listing.run()
        from interface.config import RECOGNITION, load_settings  # noqa: PLC0415

        settings = load_settings()
        if settings.interface == RECOGNITION:  # torch is imported only now, so --help is fast
            from interface.recognition import TextRecognition  # noqa: PLC0415

            return TextRecognition(settings).run()
        from interface.super_resolution import TextSR  # noqa: PLC0415

        return TextSR(settings).run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
