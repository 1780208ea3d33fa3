"""The certificate of a file that ships: written, measured again, taken to other machines."""

from distill.certificate.kit import write_kit
from distill.certificate.verify import verify_file
from distill.certificate.write import certify

__all__ = ["certify", "verify_file", "write_kit"]
