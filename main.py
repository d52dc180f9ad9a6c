"""Train, test or try a scene-text super-resolution system; see `python main.py --help`."""

import sys

from interface.config import ConfigError, load_settings


def main() -> int:
    """Read the command line, pick the verb, call it; returns the exit code."""
    try:
        settings = load_settings()
        from interface.super_resolution import TextSR  # noqa: PLC0415 - torch is imported only now, so --help is fast

        return TextSR(settings).run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except (ConfigError, ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
