"""What can only be seen on a GPU: exactness, speed, fidelity and leaks, measured on the machine.

``tools/gpu_check.py`` runs it; ``docs/gpu-results.md`` says what each check does. Every check is
a pytest test that runs in a process of its own, so that a fault which loses the device ends that
check and no other.
"""
