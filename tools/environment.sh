# For `.` in sh and bash, in the repository's root: makes the NVRTC and the NumPy that setup.sh may have put into .venv found.
if [ -d .venv ]; then
  export VIRTUAL_ENV="$PWD/.venv"
  export PATH="$VIRTUAL_ENV/bin:$PATH"
fi
