"""The program prep with units of 8 pictures in place of 512: many of them for many hosts."""

from prep.cli import main
from prep.sources import listing

UNIT_SIZE = 8

if __name__ == "__main__":
    listing.UNIT_SIZE = UNIT_SIZE
    main()
