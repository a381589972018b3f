__version__ = "0.1.0"


def main(): # -> exit status
    "The program: `cli.main`, and 130 for a Ctrl-C while that is still being imported."
    try:
        from .cli import main
        return main()
    except KeyboardInterrupt:
        import sys
        sys.stderr.write("my3yearold: stopped\n")
        return 130
