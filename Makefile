# make quick       the notebooks, three epochs on 8,192 images, under build/quick
# make lab         JupyterLab on the first notebook (as root: LAB_ARGS="--allow-root --no-browser")
# make notebooks   MNIST, then the notebooks, executed in place (-j2: two at a time)
# make study       what is missing of the study's 90 runs, and the report on them
# make report      the report on the study's runs, as they are
# make draw        a page in the browser on which to draw a digit
# make test        the tests
# make torture     hundreds of faults inflicted on checkpoints, data and training
# make bench       an epoch against the usual loop's, side by side
# make lock        requirements.lock: the versions of all that requirements.txt brings along;
#                  requirements-draw.lock: with those of requirements-draw.txt
# make clean       remove build/, all checkpoints and what killed writers left
#
# Each sets up what it needs, in .venv or in VENV=PATH; draw in .venv-draw or in DRAW_VENV=PATH.

PYTHON ?= python3
VENV ?= .venv
DRAW_VENV ?= .venv-draw
ifneq ($(words $(VENV)),1)
$(error VENV is "$(VENV)"; expected a path without spaces)
endif
ifneq ($(words $(DRAW_VENV)),1)
$(error DRAW_VENV is "$(DRAW_VENV)"; expected a path without spaces)
endif
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.ready
NOTEBOOKS := $(addprefix MNIST_Classifier_,v1 v2 Final OneCycle)
QUICK := build/quick
COMPILE := build/lock/bin/python -m uv pip compile --quiet --universal --python-version 3.11 \
    --no-annotate --custom-compile-command "make lock" --output-file

.PHONY: quick lab notebooks $(NOTEBOOKS) data study report draw test torture bench lock clean

quick: data
	@rm -rf $(QUICK)
	@for name in $(NOTEBOOKS); do \
	    $(RUN) helpers.execute $$name.ipynb --to $(QUICK)/$$name.ipynb \
	        EPOCHS=3 TRAIN_IMAGES=8192 OUT_DIR=$(QUICK) || exit 1; \
	done
	@echo
	@echo "$(QUICK) holds the notebooks as executed (.ipynb), what each epoch measured (.json)" \
	    "and the networks' weights (.safetensors)."

lab: $(READY)
	@$(RUN) jupyter lab --LabApp.default_url=/lab/tree/MNIST_Classifier_v1.ipynb $(LAB_ARGS)

notebooks: $(NOTEBOOKS)

$(NOTEBOOKS): data
	@$(RUN) helpers.execute $@.ipynb

data: $(READY)
	@$(VENV)/bin/python -c "from DataPipeline import load_mnist; load_mnist()"

study: $(READY)
	@$(RUN) study run
	@$(RUN) study report

report: $(READY)
	@$(RUN) study report

draw: $(DRAW_VENV)/.ready
	@$(DRAW_VENV)/bin/python app.py

test: $(READY)
	@$(RUN) pytest -m "not torture"

torture: $(READY)
	@$(RUN) pytest -m torture

bench: $(READY)
	@$(VENV)/bin/python benchmarks/epoch_time.py --json benchmarks/epoch_time.json

lock:
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(COMPILE) requirements.lock requirements.txt
	@cp requirements.lock requirements-draw.lock  # the same versions, where Gradio takes them
	@$(COMPILE) requirements-draw.lock requirements.txt requirements-draw.txt

clean:
	rm -rf build checkpoints
	rm -f .*.tmp data/MNIST/raw/.*.tmp
	find results -name '*.pt' -delete -or -name '*.lock' -delete -or -name '.*.tmp' -delete

$(READY): requirements.txt requirements.lock
$(DRAW_VENV)/.ready: requirements.txt requirements-draw.txt requirements-draw.lock
%/.ready:
	@case "$$($(PYTHON) --version 2>&1)" in \
	    "Python 3.11."* | "Python 3.12."* | "Python 3.13."*) ;; \
	    *) echo "This needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is none of them: name one," \
	           "as in make PYTHON=python3.12"; exit 1 ;; \
	esac
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check \
	    $(patsubst %.txt,-r %.txt,$(filter %.txt,$^)) -c $(filter %.lock,$^)
	@touch $@
